/*
 * The panel as a whole.
 */

import * as React from 'react';

import { amount } from '../text';
import { Button, IPartProps, useModel } from './common';
import { History } from './history';
import { Install, Proposal } from './install';
import { List } from './list';
import { Notices } from './notices';
import { Progress } from './progress';

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
