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

interface IButtonProps {
  label: string;
  /** What it is said to be where the label alone is not enough. */
  title?: string;
  onClick: () => void;
  kind?: 'accept' | 'warn';
  disabled?: boolean;
  tabIndex?: number;
}

export function Button(props: IButtonProps): JSX.Element {
  const kind = props.kind ? ` ovl-mod-${props.kind}` : '';
  return (
    <button
      type="button"
      className={`ovl-Button${kind}`}
      title={props.title}
      aria-label={props.title}
      disabled={props.disabled}
      tabIndex={props.tabIndex}
      onClick={props.onClick}
    >
      {props.label}
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
