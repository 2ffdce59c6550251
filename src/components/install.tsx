/*
 * What to install, and what that would do.
 */

import * as React from 'react';

import { amount, requirements } from '../text';
import { IPlan } from '../types';
import { Button, IPartProps, ITexts, useModel } from './common';

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
