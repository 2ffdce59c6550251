/*
 * What has to be known of the server, before anything else.
 */

import * as React from 'react';

import { INotice } from '../types';
import { IPartProps, ITexts, Notice } from './common';

/** What has to be known: of the server, and why the last thing asked for was refused. */
export function Notices({ model, trans }: IPartProps): JSX.Element {
  return (
    <div className="ovl-Notices" aria-live="polite">
      {notices(model.status, trans).map((notice, index) => (
        <Notice key={index} notice={notice} />
      ))}
      {model.error && <Notice notice={model.error} role="alert" />}
    </div>
  );
}

/** The notices of a status: the server's own, and what its state means. */
export function notices(status: IPartProps['model']['status'], trans: ITexts): INotice[] {
  if (!status) {
    return [];
  }
  const found: INotice[] = [...status.notices];
  const say = (code: string, message: string, hint = ''): number => found.push({ code, message, hint });
  if (status.mode === 'safe' && !found.some(item => item.code.startsWith('safe'))) {
    say('safe-mode', trans.__('Safe mode: kernels run without your packages.'));
  }
  if (status.restore?.state === 'running' || status.restore?.state === 'pending') {
    say('restoring', trans.__('Your packages are being installed again for this image.'));
  }
  if (status.pending && Object.values(status.pending).some(lines => lines?.length)) {
    say(
      'pending',
      trans.__('requirements.txt was edited by hand.'),
      trans.__('Run “overlay sync” in a terminal to install what it asks for.')
    );
  }
  return found;
}
