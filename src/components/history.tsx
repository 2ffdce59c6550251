/*
 * What was changed, and how it is undone.
 */

import * as React from 'react';

import { IRevision } from '../types';
import { Button, IPartProps, ITexts, useModel } from './common';

/** Revisions that are shown; the command line shows all. */
const SHOWN = 50;

export function History({ model, trans }: IPartProps): JSX.Element {
  useModel(model);
  const undoable = model.status?.undoable ?? null;
  if (!model.revisions.length) {
    return <p className="ovl-Empty">{trans.__('Nothing was changed yet.')}</p>;
  }
  return (
    <ol className="ovl-History" aria-label={trans.__('Changes, newest first')}>
      {model.revisions.slice(0, SHOWN).map(revision => (
        <li key={revision.id} data-revision={revision.id}>
          <div className="ovl-Row-text">
            <div>{title(revision, trans)}</div>
            <div className="ovl-Row-marks">
              #{revision.id} · <time dateTime={revision.when}>{new Date(revision.when).toLocaleString()}</time>
              {revision.who ? ` · ${revision.who}` : ''}
            </div>
          </div>
          {undoable?.revision === revision.id && (
            <Button
              label={undoable.offline ? trans.__('Undo') : trans.__('Undo (needs download)')}
              title={trans.__('Undo change %1', revision.id)}
              disabled={model.busy || model.proposal !== null}
              onClick={() => void model.undo(revision.id)}
            />
          )}
        </li>
      ))}
    </ol>
  );
}

function title(revision: IRevision, trans: ITexts): string {
  if (revision.action === 'undo' && revision.undoes) {
    return trans.__('Change %1 undone', revision.undoes);
  }
  return revision.argv.length ? revision.argv.join(' ') : revision.action;
}
