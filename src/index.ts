/*
 * The plugin: panel, command, status-bar item.
 */

import { ILabShell, ILayoutRestorer, JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { IStatusBar } from '@jupyterlab/statusbar';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';

import { PackagesModel } from './model';
import { Server } from './server';
import { PackagesPanel, PackagesStatus, packagesIcon } from './widgets';

const ID = 'overlayspawner:panel';

export const OPEN = 'overlayspawner:open';

const plugin: JupyterFrontEndPlugin<void> = {
  id: ID,
  description: 'Packages of the overlay: install, remove, undo.',
  autoStart: true,
  optional: [ITranslator, ICommandPalette, ILayoutRestorer, ILabShell, IStatusBar, ISettingRegistry],
  activate: (
    app: JupyterFrontEnd,
    translator: ITranslator | null,
    palette: ICommandPalette | null,
    restorer: ILayoutRestorer | null,
    labShell: ILabShell | null,
    statusBar: IStatusBar | null,
    settings: ISettingRegistry | null
  ): void => {
    const trans = (translator ?? nullTranslator).load('overlayspawner');
    const model = new PackagesModel(new Server(app.serviceManager.serverSettings));
    const panel = new PackagesPanel(model, trans);
    app.shell.add(panel, 'left', { rank: 550 });
    restorer?.add(panel, ID);

    app.commands.addCommand(OPEN, {
      label: trans.__('Packages'),
      caption: trans.__('Install, remove and undo packages'),
      icon: args => (args['isPalette'] ? undefined : packagesIcon),
      execute: () => {
        if (!labShell && 'expandLeft' in app.shell) {
          // Notebook 7, where a side panel has to be unfolded
          (app.shell as unknown as { expandLeft(id: string): void }).expandLeft(panel.id);
        } else {
          app.shell.activateById(panel.id);
        }
      }
    });
    palette?.addItem({ command: OPEN, category: trans.__('Packages'), args: { isPalette: true } });

    if (statusBar) {
      const item = new PackagesStatus(model, trans, () => void app.commands.execute(OPEN));
      let shown = true;
      statusBar.registerStatusItem(OPEN, { item, align: 'left', rank: 50, isActive: () => shown });
      settings
        ?.load(ID)
        .then(loaded => {
          const apply = (): void => {
            shown = loaded.get('statusBar').composite !== false;
            item.setHidden(!shown);
          };
          apply();
          loaded.changed.connect(apply);
        })
        .catch(() => undefined); // then the default holds
    }
  }
};

export default plugin;
