/*
 * Safe mode as a restart of the server, after the user has agreed.
 */

import { Dialog, showDialog } from '@jupyterlab/apputils';
import { PageConfig, URLExt } from '@jupyterlab/coreutils';
import { CommandRegistry } from '@lumino/commands';

import { ITexts } from './components/common';
import { hubOfPage, spawnAddress, stopped } from './hub';
import { IPageServer, ServerError, StartMode, UNREACHABLE } from './types';

/** JupyterLab's command that saves all that is open. */
const SAVE_ALL = 'docmanager:save-all';

/** Documents that are named one by one. */
const NAMED = 6;

/**
 * Start the server again, in safe mode or out of it.
 *
 * @param unsaved Tells the open documents that hold something that no file has.
 */
export async function restartServer(
  mode: StartMode,
  server: IPageServer,
  commands: CommandRegistry,
  trans: ITexts,
  unsaved: () => string[]
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
  if (hub && !(await saved(commands, trans, unsaved))) {
    return;
  }
  try {
    await server.nextStart(mode);
    if (!hub) {
      return;
    }
    await stop(server, mode);
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

/** Save all that is open; where something can't be saved, the user decides. */
async function saved(commands: CommandRegistry, trans: ITexts, unsaved: () => string[]): Promise<boolean> {
  if (commands.hasCommand(SAVE_ALL)) {
    // it says itself what is wrong with a document
    await commands.execute(SAVE_ALL).catch(() => undefined);
  }
  const left = unsaved();
  if (!left.length) {
    return true;
  }
  let names = left.slice(0, NAMED).join(', ');
  if (left.length > NAMED) {
    names = trans.__('%1 and %2 more', names, left.length - NAMED);
  }
  const answer = await showDialog({
    title: trans.__('Not everything could be saved'),
    body: trans.__('What was changed in these documents would be lost: %1', names),
    buttons: [
      Dialog.cancelButton({ label: trans.__('Cancel') }),
      Dialog.warnButton({ label: trans.__('Restart and lose it') })
    ]
  });
  return answer.button.accept;
}

/** Stop the server; where that fails, it does not start in safe mode some other day either. */
async function stop(server: IPageServer, mode: StartMode): Promise<void> {
  try {
    await server.shutdown();
  } catch (error) {
    if (error instanceof ServerError && error.notice.code === UNREACHABLE) {
      return; // it was quicker to stop than to answer
    }
    if (mode === 'safe') {
      await server.nextStart('normal').catch(() => undefined);
    }
    throw error;
  }
}
