/*
 * What has to be known of the server, before anything else: one calm bar, the gravest first.
 */

import * as React from 'react';

import { usePage } from '../actions';
import { amount } from '../text';
import { INotice, IStatus, isAway, LOGGED_OUT } from '../types';
import { Button, IPartProps, ITexts, Notice, useFocusBack } from './common';

export type Severity = 'error' | 'warning' | 'info';

/** Bytes of free space below which it is said. */
const LITTLE = 200_000_000;

const ERRORS = [
  'home-unwritable',
  'home-full',
  'home-unknown',
  'read-only',
  'disk-full',
  'deadline',
  'bootstrap-failed',
  'env-broken',
  'damaged-file',
  'not-restored'
];

const INFOS = [
  'safe-mode',
  'restoring',
  'reset-done',
  'home-moved',
  'adopted',
  'user-site-packages',
  'venvs-found',
  'requirements-pending',
  'pending',
  'root-start',
  'no-kernel',
  'base-changed'
];

/** How grave a notice is. Pure; what is not known is a warning. */
export function severity(code: string): Severity {
  return ERRORS.includes(code) ? 'error' : INFOS.includes(code) ? 'info' : 'warning';
}

/** Where deleting something helps. */
const SPACE = ['space-short', 'home-full', 'disk-full', 'size-limit'];

const RANK: Severity[] = ['error', 'warning', 'info'];

/** What has to be known: of the server, and why the last thing asked for was refused. */
export function Notices(props: IPartProps & { onSpace?: () => void }): JSX.Element {
  const { model, trans, onSpace } = props;
  const [dismissed, setDismissed] = React.useState<readonly string[]>([]);
  const [open, setOpen] = React.useState(false);
  const found = notices(model.status, trans)
    .filter(notice => !dismissed.includes(key(notice)))
    .sort((one, other) => RANK.indexOf(severity(one.code)) - RANK.indexOf(severity(other.code)));
  const shown = open ? found : found.slice(0, 1);
  const more = found.length - 1;
  return (
    <div className="ovl-Notices" aria-live="polite">
      {shown.map(notice => (
        <Bar
          key={key(notice)}
          {...{ notice, model, trans, onSpace }}
          onDismiss={() => setDismissed([...dismissed, key(notice)])}
        />
      ))}
      {more > 0 && (
        <button type="button" className="ovl-Notices-more" aria-expanded={open} onClick={() => setOpen(!open)}>
          {open ? trans.__('Show less') : trans._n('%1 more notice', '%1 more notices', more, more)}
        </button>
      )}
      {model.error && <Notice notice={refusal(model.error, trans)} role="alert" />}
    </div>
  );
}

/** Why something failed; what a browser says of a lost connection is no sentence. */
function refusal(error: INotice, trans: ITexts): INotice {
  if (!isAway(error)) {
    return error;
  }
  if (error.code === LOGGED_OUT) {
    const hint = trans.__('Log in again in another tab: then this goes away by itself.');
    return { ...error, message: trans.__('You are logged out.'), hint };
  }
  const message = trans.__('Your server can’t be reached.');
  return { ...error, message, hint: trans.__('Once the connection is back, this goes away by itself.') };
}

function key(notice: INotice): string {
  return `${notice.code}: ${notice.message}`;
}

interface IBarProps extends IPartProps {
  notice: INotice;
  onDismiss: () => void;
  /** Show what can be deleted. */
  onSpace?: () => void;
}

function Bar(props: IBarProps): JSX.Element {
  const { notice, model, trans, onDismiss, onSpace } = props;
  const level = severity(notice.code);
  const box = React.useRef<HTMLDivElement>(null);
  useFocusBack(box, false);
  return (
    <div className={`ovl-Notice ovl-mod-${level}`} role="note" data-code={notice.code} ref={box}>
      <Sign {...{ level, trans }} />
      <div className="ovl-Notice-text">
        <span className="ovl-Notice-message">{notice.message}</span>
        {notice.hint && <span className="ovl-Notice-hint">{notice.hint}</span>}
        <Act code={notice.code} {...{ model, trans, onSpace }} />
      </div>
      <button
        type="button"
        className="ovl-Notice-dismiss"
        title={trans.__('Dismiss')}
        aria-label={trans.__('Dismiss: %1', notice.message)}
        onClick={onDismiss}
      >
        ×
      </button>
    </div>
  );
}

/** A shape for each severity: colour alone would not do. */
function Sign({ level, trans }: { level: Severity; trans: ITexts }): JSX.Element {
  const names = { error: trans.__('Error'), warning: trans.__('Warning'), info: trans.__('Information') };
  return (
    <svg
      className="ovl-Notice-sign"
      viewBox="0 0 16 16"
      width="16"
      height="16"
      role="img"
      aria-label={names[level]}
    >
      {level === 'warning' ? <path d="M8 1 15.5 14.5H.5z" /> : <circle cx="8" cy="8" r="7" />}
      {level === 'info' ? (
        <path className="ovl-Notice-stroke" d="M8 7v5M8 4v1.4" />
      ) : (
        <path className="ovl-Notice-stroke" d="M8 5v5M8 11.6V13" />
      )}
    </svg>
  );
}

/** What can be done about a notice right here, where there is something. */
function Act(props: IPartProps & { code: string; onSpace?: () => void }): JSX.Element | null {
  const { code, model, trans, onSpace } = props;
  const page = usePage();
  const jobs: { [code: string]: [label: string, action: string] } = {
    pending: [trans.__('Apply'), 'sync'],
    'requirements-pending': [trans.__('Apply'), 'sync'],
    'restore-waiting': [trans.__('Install them now'), 'restore'],
    'restore-partial': [trans.__('Try again'), 'restore'],
    'packages-missing': [trans.__('Repair'), 'sync']
  };
  if (code === 'safe-mode') {
    return <Button label={trans.__('Leave safe mode…')} onClick={() => void page.restartServer('normal')} />;
  }
  if (SPACE.includes(code)) {
    return onSpace ? <Button label={trans.__('Clean up…')} onClick={onSpace} /> : null;
  }
  if (!(code in jobs)) {
    return null;
  }
  const [label, action] = jobs[code];
  return <Button label={label} disabled={model.busy} onClick={() => void model.run({ action })} />;
}

/** Safe mode as a button. */
export function SafeMode({ model, trans }: IPartProps): JSX.Element | null {
  const page = usePage();
  if (!model.status || model.status.mode === 'safe') {
    return null; // the notice has the way back
  }
  return <Button label={trans.__('Restart in safe mode…')} onClick={() => void page.restartServer('safe')} />;
}

/** The notices of a status: the server's own, and what its state means. */
export function notices(status: IStatus | null, trans: ITexts): INotice[] {
  if (!status) {
    return [];
  }
  const found: INotice[] = [...status.notices];
  const has = (...codes: string[]): boolean => found.some(item => codes.includes(item.code));
  const say = (code: string, message: string, hint = ''): number => found.push({ code, message, hint });
  if (status.mode === 'safe' && !found.some(item => item.code.startsWith('safe'))) {
    say('safe-mode', trans.__('Safe mode: kernels run without your packages.'));
  }
  const restoring = status.restore?.state === 'running' || status.restore?.state === 'pending';
  if (restoring && !has('restoring', 'restore-waiting')) {
    say('restoring', trans.__('Your packages are being installed again for this image.'));
  }
  const pending = Object.values(status.pending ?? {}).some(lines => lines?.length);
  if (pending && !has('requirements-pending')) {
    say('pending', trans.__('requirements.txt was edited by hand.'));
  }
  const free = status.sizes?.free ?? null;
  if (free !== null && free < LITTLE && !has('home-full', 'disk-full')) {
    say('space-short', trans.__('Only %1 of space are left.', amount(free)));
  }
  return found;
}

/** What those have to be told who have the panel closed. Pure. */
export function condition(status: IStatus): 'safe' | 'restoring' | 'normal' {
  if (status.mode === 'safe') {
    return 'safe';
  }
  return status.restore?.state === 'running' || status.job?.action === 'restore' ? 'restoring' : 'normal';
}
