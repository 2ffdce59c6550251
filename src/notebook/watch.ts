/*
 * Looks at cells that fail, and says below them what may help.
 */

import { INotebookTracker, Notebook, NotebookActions, NotebookPanel } from '@jupyterlab/notebook';
import { PanelLayout, Widget } from '@lumino/widgets';

import { ITexts } from '../components/common';
import { PackagesModel } from '../model';
import { IModule, IPageServer, ServerError } from '../types';
import { Kernels } from './kernels';
import { missingModule, offer } from './missing';
import { HintWidget } from './widget';

export interface IWatchOptions {
  tracker: INotebookTracker;
  kernels: Kernels;
  model: PackagesModel;
  server: IPageServer;
  trans: ITexts;
  /** Show the panel. */
  open: () => void;
  /** Whether the user wants this at all. */
  wanted: () => boolean;
}

type ICell = Widget & { model: { id: string } };

/** Watch all notebooks of the page. */
export function watchCells(options: IWatchOptions): void {
  const { tracker, kernels, server } = options;
  const hints = new WeakMap<Widget, HintWidget>();
  /** What a cell has failed with last: answers about what it did before come too late. */
  const failures = new WeakMap<Widget, object>();
  const clear = (cell: Widget): void => {
    failures.delete(cell);
    hints.get(cell)?.dispose();
    hints.delete(cell);
  };
  NotebookActions.executionScheduled.connect((_, { cell }) => clear(cell));
  // not in every JupyterLab 4
  NotebookActions.outputCleared?.connect((_, { cell }) => clear(cell));
  NotebookActions.executed.connect((_, { notebook, cell, success, error }) => {
    if (success || !error || !options.wanted()) {
      return;
    }
    const module = missingModule(error.errorName, error.errorValue);
    const panel = tracker.find(item => item.content === notebook);
    const kernel = panel?.sessionContext.session?.kernel;
    if (!module || !panel || !kernel || !kernels.isOurs(kernel.name)) {
      return;
    }
    failures.set(cell, error);
    const unknown: IModule = { module, packages: [], restoring: false };
    server
      .module(module)
      .catch(problem => {
        if (problem instanceof ServerError && problem.notice.code === 'not-found') {
          return unknown; // an older server, which knows no modules
        }
        throw problem;
      })
      .then(known => {
        const dismiss = (): void => {
          clear(cell);
          notebook.activate(); // the focus goes on there
        };
        if (!cell.isDisposed && failures.get(cell) === error) {
          clear(cell);
          hints.set(cell, show(module, known, panel, notebook, cell, dismiss, options));
        }
      })
      .catch(() => undefined); // a server that is away: then nothing is said
  });
}

function show(
  module: string,
  known: IModule,
  panel: NotebookPanel,
  notebook: Notebook,
  cell: ICell,
  dismiss: () => void,
  { model, trans, open, kernels }: IWatchOptions
): HintWidget {
  const hint = new HintWidget({
    offer: offer(module, known),
    model,
    trans,
    open,
    dismiss,
    rerun: () => {
      const index = notebook.widgets.findIndex(item => item === cell);
      if (index >= 0) {
        notebook.activeCellIndex = index;
        notebook.deselectAll();
        void NotebookActions.run(notebook, panel.sessionContext);
      }
    },
    restart: () => {
      const id = panel.sessionContext.session?.kernel?.id;
      if (id) {
        void kernels.restart(id);
      }
    }
  });
  const layout = cell.layout as PanelLayout;
  // above the cell's footer
  layout.insertWidget(Math.max(0, layout.widgets.length - 1), hint);
  return hint;
}
