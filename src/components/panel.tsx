/*
 * The panel as a whole.
 */

import * as React from 'react';

import { amount } from '../text';
import { Cleanup } from './cleanup';
import { Button, IPartProps, useModel } from './common';
import { DropZone, FromFile } from './drop';
import { History } from './history';
import { List } from './list';
import { Notices, SafeMode } from './notices';
import { Progress } from './progress';
import { Proposal } from './proposal';
import { Install } from './search';

type Tab = 'packages' | 'history' | 'space';

export function Panel({ model, trans }: IPartProps): JSX.Element {
  useModel(model);
  const [tab, setTab] = React.useState<Tab>('packages');
  const tabs = { packages: trans.__('Packages'), history: trans.__('History'), space: trans.__('Clean up') };
  const parts = { packages: List, history: History, space: Cleanup };
  const Part = parts[tab];
  const names = Object.keys(tabs) as Tab[];
  const bar = React.useRef<HTMLDivElement>(null);
  return (
    <DropZone {...{ model, trans }}>
      <div className="ovl-Header">
        <h2>{trans.__('Packages')}</h2>
        <Button label={trans.__('Refresh')} onClick={() => void model.refresh()} />
      </div>
      <Notices {...{ model, trans }} onSpace={() => setTab('space')} />
      <Install {...{ model, trans }} />
      <FromFile {...{ model, trans }} />
      <Proposal {...{ model, trans }} />
      <Progress {...{ model, trans }} />
      <div
        className="ovl-Tabs"
        role="tablist"
        aria-label={trans.__('What is shown')}
        ref={bar}
        onKeyDown={event => {
          if (event.key === 'ArrowLeft' || event.key === 'ArrowRight') {
            const step = event.key === 'ArrowLeft' ? names.length - 1 : 1;
            const next = names[(names.indexOf(tab) + step) % names.length];
            setTab(next);
            bar.current?.querySelector<HTMLElement>(`#ovl-tab-${next}`)?.focus();
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
        <Part {...{ model, trans }} />
      </div>
      <Sizes {...{ model, trans }} />
      <SafeMode {...{ model, trans }} />
    </DropZone>
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
  return <div className="ovl-Sizes">{parts.filter(part => part).join(' · ')}</div>;
}
