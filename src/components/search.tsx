/*
 * The box: searches while somebody types, and takes pasted lists. Below it, what was found.
 */

import * as React from 'react';

import { query, requirements } from '../text';
import { IFound } from '../types';
import { Button, IPartProps, ITexts, Notice, useModel } from './common';
import { Detail } from './detail';
import { FileButton } from './drop';

/** The box, and what was found for what stands in it. */
export function Install({ model, trans }: IPartProps): JSX.Element {
  useModel(model);
  const search = model.search;
  const results = React.useRef<HTMLUListElement>(null);
  const box = React.useRef<HTMLTextAreaElement>(null);
  const text = search.text;
  const wanted = requirements(text);
  const disabled = !wanted.length || model.busy || model.proposal !== null;
  const submit = (): void => {
    if (!disabled) {
      void model.propose({ install: wanted });
    }
  };
  const shown = model.proposal === null && !model.given.found;
  return (
    <>
      <form
        className="ovl-Install"
        role="search"
        onSubmit={event => {
          event.preventDefault();
          submit();
        }}
      >
        <textarea
          className="ovl-Input"
          ref={box}
          rows={Math.min(8, text.split('\n').length)}
          value={text}
          spellCheck={false}
          aria-label={trans.__('Packages to install')}
          aria-describedby="ovl-found"
          placeholder={trans.__('Search, or paste a list')}
          onChange={event => search.type(event.target.value)}
          onKeyDown={event => {
            if (event.nativeEvent.isComposing) {
              return; // the key is meant for what puts letters together
            }
            if (event.key === 'Enter' && !event.shiftKey) {
              event.preventDefault();
              submit();
            } else if (event.key === 'Escape' && text) {
              search.type('');
            } else if (event.key === 'ArrowDown' && !text.includes('\n')) {
              const first = results.current?.querySelector<HTMLElement>('.ovl-Found-name');
              if (first) {
                event.preventDefault();
                first.focus();
              }
            }
          }}
        />
        <Button label={trans.__('Install…')} onClick={submit} disabled={disabled} />
        <FileButton {...{ model, trans }} />
      </form>
      <div className="ovl-Found-status" id="ovl-found" role="status">
        {shown ? state(model, trans) : ''}
      </div>
      {shown && search.error && <Notice notice={search.error} role="alert" />}
      {shown && search.found !== null && search.found.results.length > 0 && (
        <Results {...{ model, trans }} items={search.found.results} list={results} box={box} />
      )}
    </>
  );
}

/** What became of the search, in a sentence that is read out. */
function state(model: IPartProps['model'], trans: ITexts): string {
  const { text, busy, found } = model.search;
  const several = requirements(text);
  if (several.length > 1 && !query(text)) {
    return trans._n('%1 package, Enter to look', '%1 packages, Enter to look', several.length, several.length);
  }
  if (busy && !found) {
    return trans.__('Searching…');
  }
  if (!found) {
    return '';
  }
  const said = found.results.length
    ? [trans._n('%1 found.', '%1 found.', found.results.length, found.results.length)]
    : [trans.__('Nothing found.')];
  if (found.index === 'not-found') {
    said.push(trans.__('The index has no package with just this name.'));
  } else if (found.index === 'unreachable') {
    said.push(trans.__('The package index can’t be reached: these are the names known without it.'));
  }
  return said.join(' ');
}

interface IResultsProps extends IPartProps {
  items: IFound[];
  list: React.RefObject<HTMLUListElement>;
  box: React.RefObject<HTMLTextAreaElement>;
}

/** A list of which one is shown in detail; arrows lead from one to the next, and back into the box. */
function Results({ model, trans, items, list, box }: IResultsProps): JSX.Element {
  const [current, setCurrent] = React.useState(0);
  const onKeyDown = (event: React.KeyboardEvent): void => {
    const names = [...(list.current?.querySelectorAll<HTMLElement>('.ovl-Found-name') ?? [])];
    const at = names.findIndex(element => element.parentElement!.contains(document.activeElement));
    const to: { [key: string]: number } = {
      ArrowDown: at + 1,
      ArrowUp: at - 1,
      Home: 0,
      End: names.length - 1
    };
    if (event.key === 'Escape' || (event.key === 'ArrowUp' && at === 0)) {
      event.preventDefault();
      box.current?.focus();
    } else if (event.key in to && !(event.target instanceof HTMLSelectElement) && names.length) {
      event.preventDefault();
      names[Math.max(0, Math.min(names.length - 1, to[event.key]))].focus();
    }
  };
  const focusable = Math.min(current, items.length - 1);
  return (
    <ul className="ovl-Found" aria-label={trans.__('Packages found')} ref={list} {...{ onKeyDown }}>
      {items.map((item, index) => {
        const open = model.search.open === item.name;
        const tabIndex = open || index === focusable ? 0 : -1;
        return (
          <li key={item.name} data-found={item.name}>
            <div className="ovl-Found-row" onFocus={() => setCurrent(index)}>
              <button
                type="button"
                className="ovl-Found-name"
                aria-expanded={open}
                tabIndex={tabIndex}
                title={item.summary}
                onClick={() => void model.search.toggle(item.name)}
              >
                <span className="ovl-Found-line">
                  <b>{item.name}</b> <span className="ovl-Row-version">{item.version ?? ''}</span>
                </span>
                <span className="ovl-Found-line ovl-Row-marks">{mark(item, trans)}</span>
              </button>
              {item.where !== 'overlay' && !item.blocked && !open && (
                <Button
                  label={trans.__('Install…')}
                  title={trans.__('Install %1', item.name)}
                  tabIndex={tabIndex}
                  disabled={model.busy}
                  onClick={() => void model.propose({ install: [item.name] })}
                />
              )}
            </div>
            {open && <Detail {...{ model, trans, item }} />}
          </li>
        );
      })}
    </ul>
  );
}

/** Where it is or comes from, and what it is. */
function mark(item: IFound, trans: ITexts): string {
  const known: { [where: string]: string } = {
    overlay: trans.__('installed'),
    base: trans.__('in the image'),
    'user-site': trans.__('in ~/.local'),
    popular: trans.__('popular'),
    index: trans.__('in the index')
  };
  return [known[item.where ?? item.source], item.blocked ? trans.__('not allowed here') : '', item.summary]
    .filter(part => part)
    .join(' · ');
}
