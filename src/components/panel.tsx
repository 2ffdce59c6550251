/*
 * The panel as a whole.
 */

import * as React from 'react';

import { amount } from '../text';
import { INotice } from '../types';
import { Button, IPartProps, ITexts, Notice, useModel } from './common';
import { History } from './history';
import { Install, Progress, Proposal } from './install';
import { List } from './list';

export function Panel({ model, trans }: IPartProps): JSX.Element {
  useModel(model);
  const [tab, setTab] = React.useState<'packages' | 'history'>('packages');
  const tabs = { packages: trans.__('Packages'), history: trans.__('History') };
  const names = Object.keys(tabs) as (keyof typeof tabs)[];
  const bar = React.useRef<HTMLDivElement>(null);
  return (
    <div className="ovl-Panel-content">
      <header className="ovl-Header">
        <h2>{trans.__('Packages')}</h2>
        <Button label={trans.__('Refresh')} onClick={() => void model.refresh()} />
      </header>
      <Notices {...{ model, trans }} />
      <Install {...{ model, trans }} />
      <Proposal {...{ model, trans }} />
      <Progress {...{ model, trans }} />
      <div
        className="ovl-Tabs"
        role="tablist"
        aria-label={trans.__('What is shown')}
        ref={bar}
        onKeyDown={event => {
          if (event.key === 'ArrowLeft' || event.key === 'ArrowRight') {
            setTab(names[1 - names.indexOf(tab)]);
            bar.current?.querySelector<HTMLElement>('[aria-selected="false"]')?.focus();
          }
        }}
      >
        {names.map(name => (
          <button
            key={name}
            id={`ovl-tab-${name}`}
            type="button"
            role="tab"
            aria-selected={tab === name}
            aria-controls="ovl-tabpanel"
            tabIndex={tab === name ? 0 : -1}
            onClick={() => setTab(name)}
          >
            {tabs[name]}
          </button>
        ))}
      </div>
      <div className="ovl-Tabpanel" id="ovl-tabpanel" role="tabpanel" aria-labelledby={`ovl-tab-${tab}`}>
        {tab === 'packages' ? <List {...{ model, trans }} /> : <History {...{ model, trans }} />}
      </div>
      <Sizes {...{ model, trans }} />
    </div>
  );
}

/** What has to be known: of the server, and why the last thing asked for was refused. */
function Notices({ model, trans }: IPartProps): JSX.Element {
  return (
    <div className="ovl-Notices" aria-live="polite">
      {notices(model.status, trans).map((notice, index) => (
        <Notice key={index} notice={notice} />
      ))}
      {model.error && <Notice notice={model.error} role="alert" />}
    </div>
  );
}

/** The notices of a status: the server's own, and what its state means. */
export function notices(status: IPartProps['model']['status'], trans: ITexts): INotice[] {
  if (!status) {
    return [];
  }
  const found: INotice[] = [...status.notices];
  const say = (code: string, message: string, hint = ''): number => found.push({ code, message, hint });
  if (status.mode === 'safe' && !found.some(item => item.code.startsWith('safe'))) {
    say('safe-mode', trans.__('Safe mode: kernels run without your packages.'));
  }
  if (status.restore?.state === 'running' || status.restore?.state === 'pending') {
    say('restoring', trans.__('Your packages are being installed again for this image.'));
  }
  if (status.pending && Object.values(status.pending).some(lines => lines?.length)) {
    say(
      'pending',
      trans.__('requirements.txt was edited by hand.'),
      trans.__('Run “overlay sync” in a terminal to install what it asks for.')
    );
  }
  return found;
}

function Sizes({ model, trans }: IPartProps): JSX.Element | null {
  const sizes = model.status?.sizes;
  if (!sizes) {
    return null;
  }
  const parts = [
    sizes.overlay === null ? '' : trans.__('%1 in packages', amount(sizes.overlay)),
    sizes.free === null ? '' : trans.__('%1 free', amount(sizes.free))
  ];
  return <footer className="ovl-Sizes">{parts.filter(part => part).join(' · ')}</footer>;
}
