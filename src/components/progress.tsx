/*
 * How far a change is, and what became of it.
 */

import * as React from 'react';

import { amount } from '../text';
import { Button, IPartProps, ITexts, Notice, useModel } from './common';

/** The job that runs, or what became of the last one. */
export function Progress({ model, trans }: IPartProps): JSX.Element | null {
  useModel(model);
  const job = model.job;
  if (!job) {
    return null;
  }
  if (model.busy) {
    const percent = Math.round(100 * Math.max(0, Math.min(1, job.progress)));
    const label = job.state === 'queued' ? trans.__('Waiting…') : phase(job.phase, trans);
    const under_way = (job.packages ?? []).filter(item => item.total && (item.bytes ?? 0) < item.total);
    return (
      <div className="ovl-Progress">
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
  const restart = job.state === 'done' && job.plan?.needs_restart;
  return (
    <div className="ovl-Progress ovl-mod-over">
      <div className="ovl-Progress-label">
        <span role="status">{outcome(job.state, trans)}</span>
        <Button label={trans.__('Close')} onClick={() => model.dismissJob()} />
      </div>
      {restart && <p>{trans.__('Restart your kernels to use what has changed.')}</p>}
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

function outcome(state: string, trans: ITexts): string {
  if (state === 'done') {
    return trans.__('Done: available now.');
  }
  return state === 'cancelled'
    ? trans.__('Cancelled: nothing was changed.')
    : trans.__('It failed: nothing was changed.');
}
