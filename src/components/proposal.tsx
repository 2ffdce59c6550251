/*
 * What a change would do, and the choices there are.
 */

import * as React from 'react';

import { isAgainst, IProposal } from '../model';
import { amount } from '../text';
import { IChoice, IPlan, IPlanItem } from '../types';
import { Button, IPartProps, ITexts, useFocusBack, useModel } from './common';

/** Names in the heading. */
const SHOWN = 6;

/** The change that waits for consent. */
export function Proposal({ model, trans }: IPartProps): JSX.Element | null {
  useModel(model);
  return model.proposal && <Waiting {...{ model, trans }} proposal={model.proposal} />;
}

function Waiting({ model, trans, proposal }: IPartProps & { proposal: IProposal }): JSX.Element {
  const box = React.useRef<HTMLDivElement>(null);
  useFocusBack(box);
  const plan = proposal.plan;
  const ready = Boolean(plan);
  React.useEffect(() => {
    // who works with the keyboard goes on here
    if (ready) {
      box.current?.focus();
    }
  }, [ready, proposal]);
  const against = isAgainst(proposal) || Boolean(plan?.breaks.length || plan?.blocked.length);
  return (
    <div
      className={`ovl-Proposal${against ? ' ovl-mod-warn' : ''}`}
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
      <h3>{heading(proposal, trans)}</h3>
      {proposal.changed && (
        <p role="alert">
          <b>
            {trans.__(
              'It would do something else than what you agreed to. Nothing was changed. Now it is this:'
            )}
          </b>
        </p>
      )}
      {plan ? (
        <>
          <Sentences plan={plan} />
          <Other {...{ model, trans, plan }} />
          <Details {...{ trans, plan }} />
        </>
      ) : (
        <p role="status">{trans.__('Looking what it needs…')}</p>
      )}
      {plan && isAgainst(proposal) && !plan.blocked.length && (
        <p className="ovl-Hint">
          {trans.__('If you install it anyway, that is remembered: you are not asked again.')}
        </p>
      )}
      <div className="ovl-Buttons">
        {plan && !plan.blocked.length && <Accept {...{ model, trans, proposal }} />}
        <Button label={trans.__('Cancel')} onClick={() => model.dismiss()} />
      </div>
    </div>
  );
}

function heading({ request }: IProposal, trans: ITexts): string {
  const names = [...(request.install ?? []), ...(request.uninstall ?? []), ...(request.upgrade ?? [])];
  let what = names.slice(0, SHOWN).join(', ');
  if (names.length > SHOWN) {
    what = trans.__('%1 and %2 more', what, names.length - SHOWN);
  }
  if (request.uninstall?.length) {
    return trans.__('Remove %1', what);
  }
  return request.upgrade?.length ? trans.__('Upgrade %1', what) : trans.__('Install %1', what);
}

function Accept({ model, trans, proposal }: IPartProps & { proposal: IProposal }): JSX.Element {
  const { request, plan } = proposal;
  const against = isAgainst(proposal);
  const breaks = plan!.breaks.length > 0;
  let label = against ? trans.__('Install anyway') : trans.__('Install');
  if (request.uninstall?.length) {
    label = breaks ? trans.__('Remove anyway') : trans.__('Remove');
  } else if (request.upgrade?.length) {
    label = against ? trans.__('Upgrade anyway') : trans.__('Upgrade');
  }
  const warn = against || (breaks && Boolean(request.uninstall?.length));
  return (
    <Button
      label={label}
      kind={warn ? 'warn' : 'accept'}
      disabled={model.busy}
      onClick={() => void model.accept()}
    />
  );
}

/** What else could be asked for, so that nothing stops working. */
function Other({ model, trans, plan }: IPartProps & { plan: IPlan }): JSX.Element | null {
  const choices = (plan.choices ?? []).filter(
    (item): item is IChoice & { install: string[] } => item.choice === 'change' && Boolean(item.install?.length)
  );
  return choices.length ? (
    <ul className="ovl-Choices" aria-label={trans.__('Instead')}>
      {choices.map((item, index) => (
        <li key={index}>
          <span>{item.message}</span>
          <Button
            label={trans.__('Use that…')}
            title={trans.__('Install %1', item.install.join(', '))}
            onClick={() => void model.propose({ install: item.install })}
          />
        </li>
      ))}
    </ul>
  ) : null;
}

function Sentences({ plan }: { plan: IPlan }): JSX.Element {
  return (
    <ul className="ovl-Sentences">
      {(plan.sentences ?? []).map((sentence, index) => (
        <li key={index}>{sentence}</li>
      ))}
    </ul>
  );
}

/** A plan package by package. */
function Details({ plan, trans }: { plan: IPlan; trans: ITexts }): JSX.Element | null {
  return plan.new.length > 0 ? (
    <details>
      <summary>
        {trans._n('%1 package in detail', '%1 packages in detail', plan.new.length, plan.new.length)}
      </summary>
      <Comes items={plan.new} trans={trans} />
    </details>
  ) : null;
}

/** Packages that come, each with its size and what it takes the place of. */
export function Comes({ items, trans }: { items: IPlanItem[]; trans: ITexts }): JSX.Element {
  return (
    <ul>
      {items.map(item => (
        <li key={item.name}>
          {item.name} {item.version}
          {item.replaces ? ` ${trans.__('(was %1)', item.replaces)}` : ''}
          {item.size ? `, ${amount(item.size)}` : ''}
        </li>
      ))}
    </ul>
  );
}
