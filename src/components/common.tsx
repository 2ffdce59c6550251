/*
 * What the parts of the panel share. All texts from packages and index are children of elements: shown as
 * text, whatever they hold.
 */

import * as React from 'react';

import { PackagesModel } from '../model';
import { INotice } from '../types';

/** What we need of JupyterLab's translation bundle. */
export interface ITexts {
  __(text: string, ...args: any[]): string;
  _n(singular: string, plural: string, n: number, ...args: any[]): string;
}

export interface IPartProps {
  model: PackagesModel;
  trans: ITexts;
}

/** Render again whenever the model has changed. */
export function useModel(model: PackagesModel): void {
  const [, tick] = React.useReducer((n: number) => n + 1, 0);
  React.useEffect(() => {
    const onChange = (): void => tick();
    model.changed.connect(onChange);
    return () => {
      model.changed.disconnect(onChange);
    };
  }, [model]);
}

/**
 * Give the focus back to where it was before something was shown, when that goes and had it.
 *
 * @param box - what is shown
 * @param asked - whether somebody has asked for it; else the focus goes to where names are typed
 */
export function useFocusBack(box: React.RefObject<HTMLElement>, asked = true): void {
  React.useLayoutEffect(() => {
    const before = asked && document.activeElement instanceof HTMLElement ? document.activeElement : null;
    const panel = box.current?.closest<HTMLElement>('.ovl-Panel-content');
    const inside = box.current;
    return () => {
      // it is asked after the page has changed: what had the focus may be gone, or not be usable
      const had = inside?.contains(document.activeElement);
      window.setTimeout(() => {
        const nowhere = !document.activeElement || document.activeElement === document.body;
        if (!had || !nowhere) {
          return;
        }
        if (before?.isConnected && before !== document.body) {
          before.focus();
        }
        if (!before || document.activeElement !== before) {
          panel?.querySelector<HTMLElement>('textarea')?.focus();
        }
      });
    };
  }, []);
}

interface IButtonProps {
  label: string;
  /** What it is said to be where the label alone is not enough. */
  title?: string;
  onClick: () => void;
  kind?: 'accept' | 'warn' | 'quiet';
  disabled?: boolean;
  tabIndex?: number;
  /** Shown instead of the label. */
  icon?: JSX.Element;
}

export function Button(props: IButtonProps): JSX.Element {
  const kind = props.kind ? ` ovl-mod-${props.kind}` : '';
  return (
    <button
      type="button"
      className={`ovl-Button${kind}`}
      title={props.title}
      aria-label={props.title ?? (props.icon && props.label)}
      disabled={props.disabled}
      tabIndex={props.tabIndex}
      onClick={props.onClick}
    >
      {props.icon ?? props.label}
    </button>
  );
}

export function Notice(props: { notice: INotice; role?: 'alert' | 'note' }): JSX.Element {
  const { code, message, hint } = props.notice;
  return (
    <div className={`ovl-Notice ovl-mod-${props.role ?? 'note'}`} role={props.role ?? 'note'} data-code={code}>
      <span className="ovl-Notice-message">{message}</span>
      {hint && <span className="ovl-Notice-hint">{hint}</span>}
    </div>
  );
}
