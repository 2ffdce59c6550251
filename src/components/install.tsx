/*
 * What to install, what that would do, and how far it is.
 */

import * as React from 'react';

import { amount, requirements } from '../text';
import { IPlan } from '../types';
import { Button, IPartProps, ITexts, Notice, useModel } from './common';

/** The box for names and pasted lists. */
export function Install({ model, trans }: IPartProps): JSX.Element {
  useModel(model);
  const [text, setText] = React.useState('');
  const wanted = requirements(text);
  const disabled = !wanted.length || model.busy || model.proposal !== null;
  const accepted = model.busy && model.proposal === null && model.job?.action === 'install';
  React.useEffect(() => {
    if (accepted) {
      setText('');
    }
  }, [accepted]);
  const submit = (): void => {
    if (!disabled) {
      void model.propose({ install: wanted });
    }
  };
  return (
    <form
      className="ovl-Install"
      onSubmit={event => {
        event.preventDefault();
        submit();
      }}
    >
      <textarea
        className="ovl-Input"
        rows={Math.min(8, text.split('\n').length)}
        value={text}
        spellCheck={false}
        aria-label={trans.__('Packages to install')}
        placeholder={trans.__('Name, or a pasted list')}
        onChange={event => setText(event.target.value)}
        onKeyDown={event => {
          if (event.key === 'Enter' && !event.shiftKey) {
            event.preventDefault();
            submit();
          }
        }}
      />
      <Button label={trans.__('Install…')} onClick={submit} disabled={disabled} />
    </form>
  );
}

/** The change that waits for consent. */
export function Proposal({ model, trans }: IPartProps): JSX.Element | null {
  useModel(model);
  const proposal = model.proposal;
  const box = React.useRef<HTMLDivElement>(null);
  const ready = Boolean(proposal?.plan);
  React.useEffect(() => {
    // who works with the keyboard goes on here
    if (ready) {
      box.current?.focus();
    }
  }, [ready]);
  if (!proposal) {
    return null;
  }
  const { request, plan } = proposal;
  const names = [...(request.install ?? []), ...(request.uninstall ?? []), ...(request.upgrade ?? [])];
  const what = names.join(', ');
  return (
    <div
      className="ovl-Proposal"
      role="group"
      aria-label={trans.__('Planned change')}
      tabIndex={-1}
      ref={box}
      onKeyDown={event => {
        if (event.key === 'Escape') {
          model.dismiss();
        }
      }}
    >
      <h3>{request.uninstall?.length ? trans.__('Remove %1', what) : trans.__('Install %1', what)}</h3>
      {plan ? <Plan plan={plan} trans={trans} /> : <p role="status">{trans.__('Looking what it needs…')}</p>}
      <div className="ovl-Buttons">
        {plan && <Accept plan={plan} removes={Boolean(request.uninstall?.length)} {...{ model, trans }} />}
        <Button label={trans.__('Cancel')} onClick={() => model.dismiss()} />
      </div>
    </div>
  );
}

function Accept(props: IPartProps & { plan: IPlan; removes: boolean }): JSX.Element | null {
  const { model, trans, plan, removes } = props;
  if (plan.blocked.length) {
    return null;
  }
  let label = removes ? trans.__('Remove') : trans.__('Install');
  if (plan.breaks.length) {
    label = removes ? trans.__('Remove anyway') : trans.__('Install anyway');
  }
  return (
    <Button
      label={label}
      kind={plan.breaks.length ? 'warn' : 'accept'}
      disabled={model.busy}
      onClick={() => void model.accept()}
    />
  );
}

function Plan({ plan, trans }: { plan: IPlan; trans: ITexts }): JSX.Element {
  return (
    <>
      <ul className="ovl-Sentences">
        {(plan.sentences ?? []).map((sentence, index) => (
          <li key={index}>{sentence}</li>
        ))}
      </ul>
      {plan.new.length > 0 && (
        <details>
          <summary>
            {trans._n('%1 package in detail', '%1 packages in detail', plan.new.length, plan.new.length)}
          </summary>
          <ul>
            {plan.new.map(item => (
              <li key={item.name}>
                {item.name} {item.version}
                {item.size ? `, ${amount(item.size)}` : ''}
              </li>
            ))}
          </ul>
        </details>
      )}
    </>
  );
}

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
