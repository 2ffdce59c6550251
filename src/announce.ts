/*
 * Tells once, also those who have the panel closed, that packages are missing for now.
 */

import { Notification } from '@jupyterlab/apputils';

import { ITexts } from './components/common';
import { condition } from './components/notices';
import { IPageServer, IStatus } from './types';

/** Milliseconds between two looks while packages are being installed again. */
const PAUSE = 5000;

/**
 * Look once, and then, where somebody sees the page, while packages are being installed again until they are there.
 *
 * @param open Shows the panel.
 * @param leave Restarts without safe mode.
 * @param seen Is told the first status.
 */
export async function announce(
  server: IPageServer,
  trans: ITexts,
  open: () => void,
  leave: () => void,
  seen: (status: IStatus) => void
): Promise<void> {
  const look = async (): Promise<IStatus | null> => server.status().catch(() => null);
  let status = await look();
  const now = status && condition(status);
  if (status) {
    seen(status);
  }
  const show = { label: trans.__('Packages'), callback: open };
  if (now === 'safe') {
    Notification.info(trans.__('Safe mode: kernels run without your packages.'), {
      autoClose: false,
      actions: [{ label: trans.__('Leave safe mode…'), callback: leave }, show]
    });
  }
  if (now !== 'restoring') {
    return;
  }
  const id = Notification.info(trans.__('Your packages are being installed again for this image.'), {
    autoClose: false,
    actions: [show]
  });
  while (!status || condition(status) === 'restoring') {
    await new Promise(resolve => window.setTimeout(resolve, PAUSE));
    if (document.visibilityState !== 'hidden') {
      status = await look();
    }
  }
  const state = status.restore?.state ?? 'done';
  if (state === 'done') {
    Notification.update({
      id,
      message: trans.__('Your packages are back.'),
      type: 'success',
      autoClose: 8000,
      actions: []
    });
  } else {
    Notification.update({
      id,
      message: trans.__('Not all of your packages could be installed again.'),
      type: 'warning',
      autoClose: false,
      actions: [show]
    });
  }
}
