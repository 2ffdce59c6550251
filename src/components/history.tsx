/*
 * What was changed, how it is undone, and how one goes back to it.
 */

import * as React from 'react';

import { IRevision } from '../types';
import { Button, IPartProps, ITexts, useModel } from './common';
import { Confirm } from './confirm';
import { Comes } from './proposal';

/** Revisions that are shown; the command line shows all. */
const SHOWN = 50;

export function History({ model, trans }: IPartProps): JSX.Element {
  useModel(model);
  if (!model.revisions.length) {
    return (
      <p className="ovl-Empty">{model.loaded ? trans.__('Nothing was changed yet.') : trans.__('Loading…')}</p>
    );
  }
  return (
    <ol className="ovl-History" aria-label={trans.__('Changes, newest first')}>
      {model.revisions.slice(0, SHOWN).map((revision, index) => (
        <Change key={revision.id} {...{ model, trans, revision }} newest={index === 0} />
      ))}
    </ol>
  );
}

type ChangeProps = IPartProps & { revision: IRevision; newest: boolean };

function Change({ model, trans, revision, newest }: ChangeProps): JSX.Element {
  const [back, setBack] = React.useState(false);
  const undoable = model.status?.undoable ?? null;
  const disabled = model.busy || model.proposal !== null;
  const undoLatest = undoable?.revision === revision.id;
  return (
    <li data-revision={revision.id}>
      <div className="ovl-History-row">
        <div className="ovl-Row-text">
          <div>{title(revision, trans)}</div>
          <div className="ovl-Row-marks">
            #{revision.id} · <time dateTime={revision.when}>{new Date(revision.when).toLocaleString()}</time>
            {revision.who ? ` · ${revision.who}` : ''}
            {undoLatest && !undoable!.offline ? ` · ${trans.__('undoing needs a download')}` : ''}
          </div>
        </div>
        {undoLatest && (
          <Button
            label={trans.__('Undo')}
            title={
              undoable!.offline
                ? trans.__('Undo change %1', revision.id)
                : trans.__('Undo change %1 (needs a download)', revision.id)
            }
            disabled={disabled}
            onClick={() => void model.undo(revision.id)}
          />
        )}
      </div>
      <details>
        <summary>
          {trans.__('Details')}
          <span className="ovl-Hidden"> {trans.__('of change %1', revision.id)}</span>
        </summary>
        <Effect {...{ revision, trans }} />
        <div className="ovl-Buttons">
          {!undoLatest && revision.action !== 'undo' && (
            <Button
              label={revision.kept === false ? trans.__('Undo this (needs a download)') : trans.__('Undo this')}
              title={
                revision.kept === false
                  ? trans.__('Undo only change %1 (needs a download)', revision.id)
                  : trans.__('Undo only change %1', revision.id)
              }
              disabled={disabled}
              onClick={() => void model.undo(revision.id)}
            />
          )}
          {!newest && (
            <Button
              label={trans.__('Go back to here…')}
              title={trans.__('Go back to what there was after change %1', revision.id)}
              disabled={disabled || back}
              onClick={() => setBack(true)}
            />
          )}
        </div>
        {back && (
          <Confirm
            trans={trans}
            text={trans.__(
              'Packages and versions become what they were after change %1; what was changed later is taken back. Versions that are not here any more are downloaded. This can be undone.',
              revision.id
            )}
            label={trans.__('Go back')}
            disabled={disabled}
            onCancel={() => setBack(false)}
            onAccept={() => {
              setBack(false);
              void model.restore(revision.id);
            }}
          />
        )}
      </details>
    </li>
  );
}

/** What a change brought and took. */
function Effect({ revision, trans }: { revision: IRevision; trans: ITexts }): JSX.Element {
  const came = revision.plan?.new ?? [];
  const went = revision.plan?.removes ?? [];
  if (!came.length && !went.length) {
    return <p>{trans.__('No package came or went.')}</p>;
  }
  return (
    <>
      {came.length > 0 && (
        <>
          <p>{trans.__('Came:')}</p>
          <Comes items={came} trans={trans} />
        </>
      )}
      {went.length > 0 && (
        <>
          <p>{trans.__('Went:')}</p>
          <Comes items={went} trans={trans} />
        </>
      )}
    </>
  );
}

function title(revision: IRevision, trans: ITexts): string {
  if (revision.action === 'undo' && revision.undoes) {
    return trans.__('Change %1 undone', revision.undoes);
  }
  return revision.argv.length ? revision.argv.join(' ') : revision.action;
}
