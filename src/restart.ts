/*
 * Safe mode as a restart of the server, after the user has agreed.
 */

import { Dialog, showDialog } from '@jupyterlab/apputils';
import { PageConfig, URLExt } from '@jupyterlab/coreutils';
import { CommandRegistry } from '@lumino/commands';

import { ITexts } from './components/common';
import { hubOfPage, spawnAddress, stopped } from './hub';
import { IPageServer, ServerError, StartMode } from './types';

/** JupyterLab's command that saves all that is open. */
const SAVE_ALL = 'docmanager:save-all';

/** Start the server again, in safe mode or out of it. */
export async function restartServer(
  mode: StartMode,
  server: IPageServer,
  commands: CommandRegistry,
  trans: ITexts
): Promise<void> {
  const hub = hubOfPage();
  const safe = mode === 'safe';
  const title = safe ? trans.__('Restart in safe mode?') : trans.__('Leave safe mode?');
  const what = safe
    ? trans.__(
        'The server starts once without your packages. They stay where they are; the start after that has them again.'
      )
    : trans.__('The server starts with your packages again.');
  const cost = hub
    ? trans.__(
        'Open documents are saved. All kernels and terminals stop: their variables and programs are lost.'
      )
    : trans.__(
        'This server was not started by a hub, so this page can’t start it again. Restart it yourself after this.'
      );
  const answer = await showDialog({
    title,
    body: `${what} ${cost}`,
    buttons: [
      Dialog.cancelButton({ label: trans.__('Cancel') }),
      hub
        ? Dialog.warnButton({ label: trans.__('Restart the server') })
        : Dialog.okButton({ label: safe ? trans.__('At the next start') : trans.__('Leave at the next start') })
    ]
  });
  if (!answer.button.accept) {
    return;
  }
  try {
    await server.nextStart(mode);
    if (!hub) {
      return;
    }
    if (commands.hasCommand(SAVE_ALL)) {
      await commands.execute(SAVE_ALL);
    }
    await server.shutdown();
  } catch (error) {
    const { message, hint } =
      error instanceof ServerError ? error.notice : { message: String(error), hint: '' };
    await showDialog({
      title: trans.__('The server was not restarted.'),
      body: `${message} ${hint}`,
      buttons: [Dialog.okButton({ label: trans.__('Close') })]
    });
    return;
  }
  const waiting = new Dialog({
    title: trans.__('Restarting…'),
    body: trans.__('The hub starts your server again.'),
    buttons: [],
    hasClose: false
  });
  void waiting.launch();
  const known = await stopped(hub, URLExt.join(PageConfig.getBaseUrl(), 'api'));
  const { pathname, search } = window.location;
  window.location.assign(
    known ? spawnAddress(hub, pathname + search) : hub.host + URLExt.join(hub.prefix, 'home')
  );
}
