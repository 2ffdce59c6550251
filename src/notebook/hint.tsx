/*
 * What is said below a cell that did not find a module.
 */

import * as React from 'react';

import { Button, ITexts, useModel } from '../components/common';
import { PackagesModel } from '../model';
import { IJob } from '../types';
import { Offer } from './missing';

export interface IHintProps {
  offer: Offer;
  model: PackagesModel;
  trans: ITexts;
  /** Show the panel. */
  open: () => void;
  /** Run the cell once more. */
  rerun: () => void;
  /** Restart the cell's kernel, after the user has agreed. */
  restart: () => void;
  /** Take it away. */
  dismiss: () => void;
}

export function Hint(props: IHintProps): JSX.Element {
  const { model, trans, offer, dismiss } = props;
  useModel(model);
  const [job, setJob] = React.useState<string | null>(null);
  const [name, setName] = React.useState('');
  const done = job !== null && model.job !== null && model.job.id !== job && brings(model.job, name);
  // what became of it stays so, whatever is done in the panel next
  const [installed, setInstalled] = React.useState(false);
  const [restart, setRestart] = React.useState(false);
  React.useEffect(() => {
    if (done) {
      setInstalled(true);
      setRestart(Boolean(model.job?.plan?.needs_restart));
    }
  }, [done, model]);
  const install = (wanted: string): void => {
    setJob(model.job?.id ?? '');
    setName(wanted);
    props.open();
    void model.propose({ install: [wanted] });
  };
  const search = (text: string): void => {
    props.open();
    model.search.type(text);
  };
  return (
    <div
      className="ovl-CellHint-content"
      role="group"
      aria-label={trans.__('Missing package')}
      onKeyDown={event => {
        if (event.key === 'Escape') {
          dismiss();
        }
      }}
    >
      <span className="ovl-CellHint-text" role="status">
        {installed ? installedText(name, restart, trans) : offered(offer, trans)}
      </span>
      {!installed &&
        offer.kind === 'install' &&
        offer.names.map(wanted => (
          <Button
            key={wanted}
            label={trans.__('Install %1', wanted)}
            kind="accept"
            disabled={model.busy}
            onClick={() => install(wanted)}
          />
        ))}
      {!installed && offer.kind === 'search' && (
        <Button label={trans.__('Search for %1…', offer.text)} onClick={() => search(offer.text)} />
      )}
      {((installed && restart) || (!installed && offer.kind === 'installed')) && (
        <Button label={trans.__('Restart this kernel')} onClick={props.restart} />
      )}
      {(installed || offer.kind === 'restoring') && (
        <Button label={trans.__('Run the cell again')} kind="accept" onClick={props.rerun} />
      )}
      <button
        type="button"
        className="ovl-Notice-dismiss"
        title={trans.__('Dismiss')}
        aria-label={trans.__('Dismiss: missing package')}
        onClick={dismiss}
      >
        ×
      </button>
    </div>
  );
}

/** Whether a job that ended well has installed a package. */
function brings(job: IJob, name: string): boolean {
  const plain = (text: string): string => text.toLowerCase().replace(/[-_.]+/g, '-');
  const found = job.plan?.new.some(item => plain(item.name) === plain(name)) ?? false;
  return job.state === 'done' && job.action === 'install' && found;
}

function offered(offer: Offer, trans: ITexts): string {
  switch (offer.kind) {
    case 'restoring':
      return trans.__('Your packages are coming back for this image. Run the cell again in a while.');
    case 'installed':
      if (offer.part) {
        return trans.__(
          '%1 is installed. Its version may not have this part, or the kernel began before it came.',
          offer.name
        );
      }
      return trans.__('%1 is installed. A kernel that began before may have to be restarted.', offer.name);
    case 'install':
      return trans._n('It is in this package:', 'It is in one of these packages:', offer.names.length);
    case 'search':
      return trans.__('No package is known to bring this.');
  }
}

function installedText(name: string, restart: boolean, trans: ITexts): string {
  return restart
    ? trans.__('%1 is installed. Restart the kernel, then run the cell again.', name)
    : trans.__('%1 is installed. Run the cell again.', name);
}
