/*
 * What the parts of the panel may ask of the page around them. Without a page nothing of it can be done.
 */

import { ISignal } from '@lumino/signaling';
import * as React from 'react';

/** A kernel that may have loaded what a change has replaced. */
export interface IStaleKernel {
  id: string;
  /** The notebook or console that it belongs to. */
  name: string;
}

export interface IActions {
  /** Kernels that should be restarted; `changed` tells of others. */
  readonly stale: readonly IStaleKernel[];
  readonly changed: ISignal<unknown, void> | null;
  /** Restart a kernel, after the user has agreed. */
  restartKernel(id: string): Promise<void>;
  /** Load the page again. */
  reload(): void;
  /** Start the server again, with or without the overlay, after the user has agreed. */
  restartServer(mode: 'safe' | 'normal'): Promise<void>;
}

export const NO_ACTIONS: IActions = {
  stale: [],
  changed: null,
  restartKernel: async () => undefined,
  reload: () => undefined,
  restartServer: async () => undefined
};

/** The page of the part that asks. */
export const Page = React.createContext<IActions>(NO_ACTIONS);

/** The page, with a new look whenever something about it changes. */
export function usePage(): IActions {
  const page = React.useContext(Page);
  const [, tick] = React.useReducer((n: number) => n + 1, 0);
  React.useEffect(() => {
    const onChange = (): void => tick();
    page.changed?.connect(onChange);
    return () => {
      page.changed?.disconnect(onChange);
    };
  }, [page]);
  return page;
}
