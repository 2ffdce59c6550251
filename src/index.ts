/*
 * The plugins: the panel with its commands and the status-bar item; what notebooks say about missing packages.
 */

import { ILabShell, ILayoutRestorer, JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette, ISessionContextDialogs } from '@jupyterlab/apputils';
import { INotebookTracker } from '@jupyterlab/notebook';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { IStatusBar } from '@jupyterlab/statusbar';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';
import { Widget } from '@lumino/widgets';

import { IActions } from './actions';
import { announce } from './announce';
import { PackagesModel } from './model';
import { Kernels } from './notebook/kernels';
import { watchCells } from './notebook/watch';
import { restartServer } from './restart';
import { Server } from './server';
import { Choices } from './settings';
import { StartMode } from './types';
import { PackagesPanel, PackagesStatus, packagesIcon } from './widgets';

const ID = 'overlayspawner:panel';

export const OPEN = 'overlayspawner:open';
export const NOTEBOOK = 'overlayspawner:notebook';
export const INSTALL = 'overlayspawner:install';
export const UNDO = 'overlayspawner:undo';
export const SAFE = 'overlayspawner:safe';
export const LEAVE = 'overlayspawner:leave-safe';

const plugin: JupyterFrontEndPlugin<void> = {
  id: ID,
  description: 'Packages of the overlay: install, remove, undo.',
  autoStart: true,
  // Notebook 7 has no ILabShell, and its pages not all of the others
  optional: [
    ITranslator,
    ICommandPalette,
    ILayoutRestorer,
    ILabShell,
    IStatusBar,
    ISettingRegistry,
    INotebookTracker,
    ISessionContextDialogs
  ],
  activate: (
    app: JupyterFrontEnd,
    translator: ITranslator | null,
    palette: ICommandPalette | null,
    restorer: ILayoutRestorer | null,
    labShell: ILabShell | null,
    statusBar: IStatusBar | null,
    settings: ISettingRegistry | null,
    tracker: INotebookTracker | null,
    dialogs: ISessionContextDialogs | null
  ): void => {
    const { commands, serviceManager, shell } = app;
    const trans = (translator ?? nullTranslator).load('overlayspawner');
    const server = new Server(serviceManager.serverSettings);
    const model = new PackagesModel(server);
    const kernels = new Kernels(serviceManager, model, tracker, trans, dialogs ?? undefined);
    const choices = new Choices(settings, ID);
    const restart = (mode: StartMode): Promise<void> =>
      restartServer(mode, server, commands, trans, () => unsaved(shell));
    const page: IActions = {
      get stale() {
        return kernels.stale;
      },
      changed: kernels.changed,
      restartKernel: id => kernels.restart(id),
      reload: () => window.location.reload(),
      restartServer: restart
    };
    const panel = new PackagesPanel(model, trans, page);
    shell.add(panel, 'left', { rank: 550 });
    restorer?.add(panel, ID);

    const open = (): void => {
      if (!labShell && 'expandLeft' in shell) {
        // Notebook 7, where a side panel has to be unfolded
        (shell as unknown as { expandLeft(id: string): void }).expandLeft(panel.id);
      } else {
        shell.activateById(panel.id);
      }
    };
    const refreshed = async (): Promise<void> => {
      open();
      if (!model.loaded) {
        await model.refresh();
      }
    };
    commands.addCommand(OPEN, {
      label: trans.__('Packages'),
      caption: trans.__('Install, remove and undo packages'),
      icon: args => (args['isPalette'] ? undefined : packagesIcon),
      execute: open
    });
    commands.addCommand(NOTEBOOK, {
      label: trans.__('Packages'),
      caption: trans.__('Install, remove and undo packages'),
      icon: packagesIcon,
      isVisible: () => choices.get('notebookButton'),
      execute: open
    });
    commands.addCommand(INSTALL, {
      label: trans.__('Install…'),
      execute: () => {
        open();
        panel.focusInput();
      }
    });
    commands.addCommand(UNDO, {
      label: trans.__('Undo the last change'),
      execute: async () => {
        await refreshed();
        if (model.status?.undoable && !model.busy) {
          await model.undo(model.status.undoable.revision);
        }
      }
    });
    commands.addCommand(SAFE, {
      label: trans.__('Restart in safe mode…'),
      isVisible: () => model.status?.mode !== 'safe',
      execute: () => restart('safe')
    });
    commands.addCommand(LEAVE, {
      label: trans.__('Leave safe mode…'),
      isVisible: () => model.status?.mode === 'safe',
      execute: () => restart('normal')
    });
    for (const command of [OPEN, INSTALL, UNDO, SAFE, LEAVE]) {
      palette?.addItem({ command, category: trans.__('Packages'), args: { isPalette: true } });
    }
    choices.changed.connect(() => commands.notifyCommandChanged(NOTEBOOK));
    let mode = model.status?.mode;
    model.changed.connect(() => {
      if (model.status?.mode !== mode) {
        mode = model.status?.mode;
        [SAFE, LEAVE].forEach(command => commands.notifyCommandChanged(command));
      }
    });

    if (statusBar) {
      const item = new PackagesStatus(model, trans, () => void commands.execute(OPEN));
      statusBar.registerStatusItem(OPEN, {
        item,
        align: 'left',
        rank: 50,
        isActive: () => choices.get('statusBar')
      });
      choices.changed.connect(() => item.setHidden(!choices.get('statusBar')));
    }
    if (tracker) {
      watchCells({ tracker, kernels, model, server, trans, open, wanted: () => choices.get('cellHints') });
    }
    void app.restored.then(() =>
      announce(
        server,
        trans,
        open,
        () => void restart('normal'),
        status => model.greet(status)
      )
    );
  }
};

/** Paths of open documents that hold something that no file has. */
function unsaved(shell: JupyterFrontEnd.IShell): string[] {
  const found: string[] = [];
  for (const widget of shell.widgets('main')) {
    const context = (widget as Widget & { context?: IOpen }).context;
    // what several people write in is kept by the server
    if (context?.model?.dirty && !context.model.collaborative) {
      found.push(context.path);
    }
  }
  return [...new Set(found)];
}

/** What a widget of a document tells of it. */
interface IOpen {
  path: string;
  model?: { dirty: boolean; collaborative?: boolean };
}

export default plugin;
