/*
 * What could be deleted to free space, in plain words, and what that means.
 */

import * as React from 'react';

import { IKind } from '../space';
import { amount } from '../text';
import { Button, IPartProps, ITexts, Notice, useModel } from './common';
import { Confirm } from './confirm';

/** Names of one kind that are shown. */
const SHOWN = 8;

export function Cleanup({ model, trans }: IPartProps): JSX.Element {
  useModel(model);
  const space = model.space;
  React.useEffect(() => {
    space.show(true);
    return () => space.show(false);
  }, [space]);
  const disabled = model.busy || model.proposal !== null;
  const kinds = space.kinds;
  const measured = space.data?.measured ?? null;
  let said = trans.__('There is nothing to clean up.');
  if (space.missing) {
    said = trans.__('This server has no clean-up.');
  } else if (!space.data) {
    said = space.error ? '' : trans.__('Loading…');
  } else if (measured === null) {
    said = trans.__('It is measured a moment after each change.');
  } else if (kinds.length) {
    said = trans.__('Nothing here is needed for your packages to work.');
  }
  return (
    <div className="ovl-Cleanup">
      {space.error && <Notice notice={space.error} role="alert" />}
      <p role="status">{said}</p>
      <ul>
        {kinds.map(kind => (
          <Kind key={kind.what} {...{ model, trans, kind, disabled }} />
        ))}
      </ul>
      {space.data && (
        <div className="ovl-Buttons">
          <Button label={trans.__('Measure now')} disabled={disabled} onClick={() => void model.clean()} />
          {measured !== null && (
            <span className="ovl-Row-marks">
              {trans.__('Measured %1', new Date(1000 * measured).toLocaleString())}
            </span>
          )}
        </div>
      )}
    </div>
  );
}

function Kind(props: IPartProps & { kind: IKind; disabled: boolean }): JSX.Element {
  const { model, trans, kind, disabled } = props;
  const [asked, setAsked] = React.useState(false);
  const { name, lost, final } = words(kind.what, trans);
  const why = kind.items.find(item => item.why)?.why;
  const go = (): void => {
    setAsked(false);
    void model.clean(kind.what);
  };
  return (
    <li data-what={kind.what}>
      <div className="ovl-History-row">
        <div className="ovl-Row-text">
          <div>
            <b>{name}</b> · {size(kind, trans)}
          </div>
          <div className="ovl-Hint">{lost}</div>
          {why && <div className="ovl-Hint">{trans.__('Some of it has to stay now: %1.', why)}</div>}
        </div>
        <Button
          label={final ? trans.__('Delete…') : trans.__('Delete')}
          title={trans.__('Delete: %1', name)}
          disabled={disabled || asked || !kind.free}
          onClick={final ? () => setAsked(true) : go}
        />
      </div>
      {asked && (
        <Confirm
          trans={trans}
          text={trans.__('These files can’t be had back.')}
          label={trans.__('Delete for good')}
          onAccept={go}
          onCancel={() => setAsked(false)}
        />
      )}
      <details>
        <summary>
          {trans._n('%1 item', '%1 items', kind.items.length, kind.items.length)}
          <span className="ovl-Hidden"> {name}</span>
        </summary>
        <ul>
          {kind.items.slice(0, SHOWN).map(item => (
            <li key={item.name}>
              {item.name}
              {item.bytes || item.later ? `, ${amount(item.bytes || item.later)}` : ''}
            </li>
          ))}
          {kind.items.length > SHOWN && <li>{trans.__('and %1 more', kind.items.length - SHOWN)}</li>}
        </ul>
      </details>
    </li>
  );
}

function size(kind: IKind, trans: ITexts): string {
  if (!kind.bytes && kind.later) {
    return trans.__('frees %1 once nothing is kept for undoing', amount(kind.later));
  }
  return kind.bytes ? trans.__('frees %1', amount(kind.bytes)) : trans.__('frees next to nothing');
}

/** What a kind is, what is lost with it, and whether that can't be made again. */
function words(what: string, trans: ITexts): { name: string; lost: string; final: boolean } {
  const known: { [what: string]: [string, string] } = {
    cache: [
      trans.__('Download cache'),
      trans.__('Nothing is lost. What you install next is downloaded again.')
    ],
    leftovers: [trans.__('Remains of interrupted work'), trans.__('Nothing is lost.')],
    copies: [
      trans.__('Packages that the image has too'),
      trans.__('The image’s are used instead, in the same version. This can be undone.')
    ],
    envs: [
      trans.__('Environments of other images'),
      trans.__('A server of such an image installs its packages again. Make sure that none is running.')
    ],
    undo: [
      trans.__('What is kept for undoing'),
      trans.__('Undoing the changes so far needs a download then, while the versions are in the index.')
    ],
    kept: [
      trans.__('Files moved aside'),
      trans.__('They belonged to no package. Look at them first: they can’t be had back.')
    ]
  };
  const [name, lost] = known[what] ?? [what, ''];
  return { name, lost, final: what === 'kept' || !(what in known) };
}
