/*
 * The installed packages. Only the rows that can be seen are in the page, so that thousands cost nothing.
 */

import * as React from 'react';

import { amount, matches } from '../text';
import { IPackage, Scope } from '../types';
import { Button, IPartProps, ITexts, Notice, useModel } from './common';

/** Pixels of a row; the style sheet's `.ovl-Row` has the same. */
export const ROW = 44;

/** Rows beyond the edges that are there already when somebody scrolls. */
const MARGIN = 6;

/** Which rows are in the page. Pure. */
export function visible(top: number, height: number, count: number): { first: number; last: number } {
  // a list that has become shorter is scrolled back by the browser, a moment later
  const there = Math.max(0, Math.min(top, count * ROW - height));
  const first = Math.max(0, Math.floor(there / ROW) - MARGIN);
  return { first, last: Math.min(count, Math.ceil((there + height) / ROW) + MARGIN) };
}

/** What can be shown: where the packages are, and of the overlay's whose they are. */
type Shown = Scope | 'administrator';

export function List({ model, trans }: IPartProps): JSX.Element {
  useModel(model);
  const [others, setOthers] = React.useState(false);
  const found = model.packages;
  const managed = model.scope === 'overlay' && (found ?? []).some(item => item.administrator);
  const all = React.useMemo(
    () => (managed ? found!.filter(item => Boolean(item.administrator) === others) : found),
    [found, managed, others]
  );
  const filter = model.filter;
  const show = (what: Shown): void => {
    setOthers(what === 'administrator');
    void model.show(what === 'administrator' ? 'overlay' : what);
  };
  const shown = React.useMemo(() => (all ?? []).filter(item => matches(item, filter)), [all, filter]);
  return (
    <>
      <div className="ovl-Filter">
        <select
          className="ovl-Input"
          aria-label={trans.__('Which packages')}
          value={managed && others ? 'administrator' : model.scope}
          onChange={event => show(event.target.value as Shown)}
        >
          <option value="overlay">{trans.__('Yours')}</option>
          {(managed || others) && <option value="administrator">{trans.__('Your administrator’s')}</option>}
          <option value="base">{trans.__('The image’s')}</option>
          <option value="user-site">{trans.__('In ~/.local')}</option>
        </select>
        <input
          className="ovl-Input"
          type="search"
          value={filter}
          aria-label={trans.__('Filter the packages')}
          placeholder={trans.__('Filter')}
          onChange={event => model.setFilter(event.target.value)}
        />
      </div>
      {model.scope === 'overlay' && all !== null && all.length > 0 && <Check {...{ model, trans }} />}
      {all === null ? (
        <p role="status">{model.error ? '' : trans.__('Loading…')}</p>
      ) : (
        <Rows key={model.scope} {...{ model, trans }} packages={shown} some={all.length > 0} />
      )}
    </>
  );
}

/** Looks for newer versions when somebody asks for it, and offers them all. */
function Check({ model, trans }: IPartProps): JSX.Element | null {
  const { newest, busy, unreachable, error, missing } = model.updates;
  if (missing) {
    return null;
  }
  const names = [...(newest?.keys() ?? [])];
  let said = '';
  if (busy) {
    said = trans.__('Asking the index…');
  } else if (unreachable) {
    said = trans.__('The package index can’t be reached.');
  } else if (newest) {
    said = names.length
      ? trans._n('%1 update', '%1 updates', names.length, names.length)
      : trans.__('All are up to date.');
  }
  const disabled = busy || model.busy || model.proposal !== null;
  return (
    <>
      <div className="ovl-Check">
        {names.length > 0 ? (
          <Button
            label={trans.__('Upgrade all…')}
            disabled={disabled}
            onClick={() => void model.propose({ upgrade: names })}
          />
        ) : (
          <Button
            label={trans.__('Check for updates')}
            disabled={disabled}
            onClick={() => void model.updates.check()}
          />
        )}
        <span className="ovl-Row-marks" role="status">
          {said}
        </span>
      </div>
      {error && <Notice notice={error} role="alert" />}
    </>
  );
}

function Rows(props: IPartProps & { packages: IPackage[]; some: boolean }): JSX.Element {
  const { model, trans, packages, some } = props;
  const box = React.useRef<HTMLDivElement>(null);
  const [view, setView] = React.useState({ top: 0, height: 600 });
  const [current, setCurrent] = React.useState(0);
  const wanted = React.useRef<number | null>(null);
  // a list that was empty has no element to look at before it has packages
  const any = packages.length > 0;
  React.useLayoutEffect(() => {
    const element = box.current;
    if (!element) {
      return;
    }
    const look = (): void => setView({ top: element.scrollTop, height: element.clientHeight || 600 });
    look();
    element.addEventListener('scroll', look, { passive: true });
    const observer = typeof ResizeObserver === 'undefined' ? null : new ResizeObserver(look);
    observer?.observe(element);
    return () => {
      element.removeEventListener('scroll', look);
      observer?.disconnect();
    };
  }, [any]);
  const { first, last } = visible(view.top, view.height, packages.length);
  React.useEffect(() => {
    // the row that a key leads to may have to come into the page first
    if (wanted.current !== null) {
      const row = box.current?.querySelector<HTMLElement>(`[data-index="${wanted.current}"]`);
      if (row) {
        wanted.current = null;
        row.focus({ preventScroll: true });
      }
    }
  });
  const go = (index: number): void => {
    const element = box.current!;
    const target = Math.max(0, Math.min(packages.length - 1, index));
    const height = element.clientHeight || 600;
    if (target * ROW < element.scrollTop) {
      element.scrollTop = target * ROW;
    } else if ((target + 1) * ROW > element.scrollTop + height) {
      element.scrollTop = (target + 1) * ROW - height;
    }
    wanted.current = target;
    setCurrent(target);
    setView({ top: element.scrollTop, height });
  };
  const onKeyDown = (event: React.KeyboardEvent): void => {
    const page = Math.max(1, Math.floor(view.height / ROW) - 1);
    const to: { [key: string]: number } = {
      ArrowDown: current + 1,
      ArrowUp: current - 1,
      PageDown: current + page,
      PageUp: current - page,
      Home: 0,
      End: packages.length - 1
    };
    if (event.key in to) {
      event.preventDefault();
      go(to[event.key]);
    } else if (event.key === 'Delete' && removable(packages[current]) && !model.busy && !model.proposal) {
      void model.propose({ uninstall: [packages[current].name] });
    }
  };
  if (!packages.length) {
    let none = model.scope === 'overlay' ? trans.__('Nothing installed yet.') : trans.__('None.');
    if (model.scope === 'overlay' && model.status && model.status.mode !== 'normal') {
      none = trans.__('This server runs without your packages, and does not list them.');
    }
    return <p className="ovl-Empty">{some ? trans.__('No package fits the filter.') : none}</p>;
  }
  // the tab key leads into the list also where somebody has scrolled away from the row that had the focus
  const focused = Math.max(first, Math.min(current, last - 1));
  return (
    <div
      className="ovl-List"
      role="list"
      aria-label={trans.__('Installed packages')}
      ref={box}
      {...{ onKeyDown }}
    >
      <div style={{ height: packages.length * ROW }} role="presentation">
        {packages.slice(first, last).map((item, offset) => (
          <Row
            key={item.name}
            {...{ model, trans, item }}
            index={first + offset}
            count={packages.length}
            focusable={first + offset === focused}
            onFocus={() => setCurrent(first + offset)}
          />
        ))}
      </div>
    </div>
  );
}

interface IRowProps extends IPartProps {
  item: IPackage;
  index: number;
  count: number;
  focusable: boolean;
  onFocus: () => void;
}

/** Whether it is the user's to remove. */
function removable(item: IPackage | undefined): boolean {
  return item?.where === 'overlay' && !item.administrator;
}

function Row({ model, trans, item, index, count, focusable, onFocus }: IRowProps): JSX.Element {
  const newer = item.where === 'overlay' ? model.updates.newest?.get(item.name) : undefined;
  const disabled = model.busy || model.proposal !== null;
  const said = [...(newer ? [trans.__('%1 is available', newer)] : []), ...marks(item, trans)];
  return (
    <div
      className="ovl-Row"
      role="listitem"
      aria-setsize={count}
      aria-posinset={index + 1}
      aria-label={[item.name, item.version, ...said].join(', ')}
      data-index={index}
      data-name={item.name}
      tabIndex={focusable ? 0 : -1}
      style={{ top: index * ROW }}
      title={item.summary}
      {...{ onFocus }}
    >
      <div className="ovl-Row-text">
        <div>
          <span className={`ovl-Row-name${item.requested ? ' ovl-mod-requested' : ''}`}>{item.name}</span>{' '}
          <span className="ovl-Row-version">{item.version}</span>
        </div>
        <div className="ovl-Row-marks">{said.join(' · ')}</div>
      </div>
      {newer && (
        <Button
          label={trans.__('Upgrade…')}
          title={trans.__('Upgrade %1 to %2', item.name, newer)}
          tabIndex={focusable ? 0 : -1}
          {...{ disabled }}
          onClick={() => void model.propose({ upgrade: [item.name] })}
        />
      )}
      {removable(item) && (
        <Button
          label={trans.__('Remove')}
          title={trans.__('Remove %1', item.name)}
          kind="quiet"
          icon={<Bin />}
          tabIndex={focusable ? 0 : -1}
          {...{ disabled }}
          onClick={() => void model.propose({ uninstall: [item.name] })}
        />
      )}
    </div>
  );
}

/** A waste bin. */
function Bin(): JSX.Element {
  return (
    <svg width="16" height="16" viewBox="0 0 16 16" fill="none" stroke="currentColor" aria-hidden="true">
      <path d="M2.5 4.5h11M6 4V2.5h4V4M4 4.5l.6 9h6.8l.6-9M6.6 7v4.5M9.4 7v4.5" />
    </svg>
  );
}

function marks(item: IPackage, trans: ITexts): string[] {
  const found: string[] = [];
  if (item.administrator) {
    found.push(trans.__('your administrator’s'));
  } else if (item.where === 'overlay') {
    found.push(item.requested ? trans.__('you asked for it') : trans.__('needed by another'));
  }
  if (item.size) {
    found.push(amount(item.size));
  }
  if (item.shadows) {
    found.push(trans.__('hides the image’s %1', item.shadows));
  }
  return found;
}
