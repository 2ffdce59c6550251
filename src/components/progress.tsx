/*
 * How far a change is, and what became of it.
 */

import * as React from 'react';

import { usePage } from '../actions';
import { amount } from '../text';
import { IJob } from '../types';
import { Button, IPartProps, ITexts, Notice, useFocusBack, useModel } from './common';

/** The job that runs, or what became of the last one. */
export function Progress({ model, trans }: IPartProps): JSX.Element | null {
  useModel(model);
  return model.job && <Shown {...{ model, trans }} job={model.job} />;
}

function Shown({ model, trans, job }: IPartProps & { job: IJob }): JSX.Element {
  const box = React.useRef<HTMLDivElement>(null);
  useFocusBack(box, false);
  if (model.running) {
    const percent = Math.round(100 * Math.max(0, Math.min(1, job.progress)));
    const label = job.state === 'queued' ? trans.__('Waiting…') : phase(job.phase, trans);
    const under_way = (job.packages ?? []).filter(item => item.total && (item.bytes ?? 0) < item.total);
    return (
      <div className="ovl-Progress" ref={box}>
        <div className="ovl-Progress-label">
          <span role="status">{label}</span>
          <Button label={trans.__('Cancel')} onClick={() => void model.cancel()} />
        </div>
        <div
          className="ovl-Bar"
          role="progressbar"
          aria-label={label}
          aria-valuemin={0}
          aria-valuemax={100}
          aria-valuenow={percent}
        >
          <div style={{ width: `${percent}%` }} />
        </div>
        <div className="ovl-Progress-message">{job.message}</div>
        <ul className="ovl-Progress-packages">
          {under_way.slice(0, 6).map(item => (
            <li key={item.name}>
              {item.name}: {amount(item.bytes ?? 0)} / {amount(item.total!)}
            </li>
          ))}
        </ul>
      </div>
    );
  }
  return (
    <div className="ovl-Progress ovl-mod-over" ref={box}>
      <div className="ovl-Progress-label">
        <Outcome {...{ model, job, trans }} />
        <Button label={trans.__('Close')} onClick={() => model.dismissJob()} />
      </div>
      {job.state === 'done' && <Needed {...{ job, trans }} />}
      {job.error && job.state === 'failed' && <Notice notice={job.error} role="alert" />}
      {(job.failed ?? []).map((item, index) => (
        <Notice
          key={index}
          notice={{ code: 'failed', message: `${item.requirement}: ${item.reason}`, hint: item.hint }}
        />
      ))}
    </div>
  );
}

function phase(name: string, trans: ITexts): string {
  const known: { [name: string]: string } = {
    resolving: trans.__('Looking what it needs…'),
    downloading: trans.__('Downloading…'),
    building: trans.__('Building…'),
    staging: trans.__('Preparing…'),
    committing: trans.__('Putting in place…')
  };
  return known[name] ?? trans.__('Working…');
}

function Outcome({ model, job, trans }: IPartProps & { job: IJob }): JSX.Element {
  const page = usePage();
  let text = trans.__('It failed: nothing was changed.');
  if (job.state === 'cancelled') {
    text = trans.__('Cancelled: nothing was changed.');
  } else if (job.state === 'done') {
    const brings = ['install', 'upgrade', 'sync', 'import', 'restore'].includes(job.action);
    const waits = job.reload || page.stale.length > 0;
    text = brings && !waits ? trans.__('Done: available now.') : trans.__('Done.');
    if (brings && model.status?.mode === 'safe') {
      text = trans.__('Done: available once safe mode is left.');
    }
  }
  return <span role="status">{text}</span>;
}

/** Kernels that are named one by one. */
const NAMED = 6;

/** What is left to do until all of a change can be used: nothing else, each with its button. */
function Needed({ job, trans }: { job: IJob; trans: ITexts }): JSX.Element | null {
  const page = usePage();
  const { stale } = page;
  if (!stale.length && !job.reload) {
    return null;
  }
  return (
    <div className="ovl-Needed">
      {stale.length > 0 && (
        <>
          <p>
            {trans._n(
              'This kernel may have loaded what was replaced:',
              'These kernels may have loaded what was replaced:',
              stale.length
            )}
          </p>
          <ul>
            {stale.slice(0, NAMED).map(kernel => (
              <li key={kernel.id} data-kernel={kernel.id}>
                <span>{kernel.name}</span>
                <Button
                  label={trans.__('Restart this kernel')}
                  title={trans.__('Restart this kernel: %1', kernel.name)}
                  onClick={() => void page.restartKernel(kernel.id)}
                />
              </li>
            ))}
            {stale.length > NAMED && <li>{trans.__('and %1 more', stale.length - NAMED)}</li>}
          </ul>
        </>
      )}
      {job.reload && (
        <Button
          label={trans.__('Reload the page for its widgets')}
          kind="accept"
          onClick={() => page.reload()}
        />
      )}
    </div>
  );
}
