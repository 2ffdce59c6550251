import * as React from 'react';
import { createRoot } from 'react-dom/client';

import { NO_ACTIONS, Page } from '../actions';
import { ITexts } from '../components/common';
import { Panel } from '../components/panel';
import { PackagesModel } from '../model';
import { Hint } from '../notebook/hint';
import { Offer } from '../notebook/missing';
import { FakeServer, item, job, PLAN } from './fake';

const { act } = React;

/** A language in which every text is recognised; `«…»` is what came from the server. */
const trans: ITexts = {
  __: (text, ...args) => `⟦${text.replace(/%(\d)/g, (_, n) => String(args[n - 1]))}⟧`,
  _n: (one, many, n, ...args) => trans.__(n === 1 ? one : many, ...args)
};

const ATTRIBUTES = ['title', 'aria-label', 'placeholder', 'alt'];

/** Texts of the page that are in no language: neither translated nor the server's. */
function bare(host: HTMLElement): string[] {
  const found: string[] = [];
  const look = (text: string | null): void => {
    let rest = text ?? '';
    for (let before = ''; before !== rest;) {
      before = rest;
      rest = rest.replace(/⟦[^⟦⟧]*⟧|«[^«»]*»/g, '');
    }
    rest = rest.replace(/\d+(\.\d+)? (bytes|kB|MB|GB)/g, '');
    if (/\p{L}/u.test(rest)) {
      found.push(text!);
    }
  };
  const walk = document.createTreeWalker(host, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    look(walk.currentNode.parentElement!.closest('time') ? null : walk.currentNode.textContent);
  }
  host.querySelectorAll('*').forEach(node => ATTRIBUTES.forEach(name => look(node.getAttribute(name))));
  return found;
}

let server: FakeServer;
let model: PackagesModel;

beforeEach(() => {
  (globalThis as any).IS_REACT_ACT_ENVIRONMENT = true;
  server = new FakeServer();
  model = new PackagesModel(server);
});

async function rendered(element: JSX.Element, act_: (host: HTMLElement) => Promise<void>): Promise<void> {
  const host = document.body.appendChild(document.createElement('div'));
  const root = createRoot(host);
  const stale = [{ id: 'k', name: '«one.ipynb»' }];
  await act(async () => root.render(<Page.Provider value={{ ...NO_ACTIONS, stale }}>{element}</Page.Provider>));
  await act_(host);
  await act(async () => root.unmount());
  host.remove();
}

test('a text that is not translated is found', async () => {
  await rendered(
    <p title={'no'}>
      {trans.__('yes %1', '«name»')} {'no'}
    </p>,
    async host => expect(bare(host)).toEqual(['no', 'no'])
  );
});

test('every text of the panel is translated', async () => {
  const status = await server.status();
  const marked = (name: string): any => ({ name: `«${name}»`, version: '«1.0»', size: 1000 });
  const plan = { ...PLAN, new: [marked('a'), marked('b')], breaks: [marked('c')], sentences: ['«sentence»'] };
  const codes = ['safe-mode', 'home-full', 'restore-waiting', 'restore-partial', 'packages-missing'];
  const failed = [{ requirement: '«a»', reason: '«why»', hint: '«hint»' }];
  const error = { code: 'internal', message: '«message»', hint: '«hint»' };
  server.lists.overlay = ['a', 'b', 'c'].map(name =>
    item(`«${name}»`, {
      version: '«1»',
      summary: '«summary»',
      shadows: '«2»',
      size: 5,
      requested: name === 'a',
      administrator: name === 'c'
    })
  );
  server.planned = plan;
  const places = ['popular', 'index', 'installed'] as const;
  const results = places.map((source, n) => {
    const where = n === 2 ? ('overlay' as const) : null;
    return { name: `«${'abc'[n]}»`, version: '«1»', summary: '«summary»', where, source };
  });
  server.found = { query: 'a', results, index: 'not-found' };
  const versions = [
    { version: '«3»', fits: false, wheel: true, prerelease: true, yanked: true, size: 5, uploaded: null },
    { version: '«2»', fits: true, wheel: false, prerelease: false, yanked: false, size: 5, uploaded: null }
  ];
  const installed = { overlay: null, base: null, user_site: null };
  const about = { name: '«b»', summary: '«summary»', url: 'https://example.org', newest: '«3»' };
  server.versions = { ...about, requires_python: null, installed, versions };
  const kinds = ['cache', 'leftovers', 'copies', 'envs', 'undo', '«other»'];
  const left = kinds.map(what => ({ what, name: '«item»', bytes: 5, later: 6, why: '«why»' }));
  server.space = { measured: 1, items: [...left, { ...left[0], name: '«more»', why: '' }] };
  server.newer = {
    updates: [{ name: '«a»', version: '«1»', newest: '«2»' }],
    checked: null,
    unreachable: true
  };
  const revision = { id: 2, when: '2026-01-01T00:00:00Z', who: '«me»' };
  server.revisions = async () =>
    [
      { ...revision, action: 'undo', argv: [], undoes: 1 },
      { ...revision, id: 1, action: '«a»', argv: ['«install»'] }
    ] as any;
  server.status = async () => ({
    ...status,
    mode: 'safe',
    notices: codes.map(code => ({ code, message: `«${code}»`, hint: '«hint»' })),
    pending: { added: ['a'] },
    restore: { state: 'running' },
    sizes: { overlay: 5, free: 10 },
    undoable: { revision: 2, offline: false }
  });
  await rendered(<Panel {...{ model, trans }} />, async host => {
    const check = (): void => expect(bare(host)).toEqual([]);
    check();
    await act(async () => model.refresh());
    const press = async (selector: string): Promise<void> =>
      act(async () => host.querySelectorAll<HTMLElement>(selector).forEach(element => element.click()));
    await press('.ovl-Notices-more');
    check();
    await act(async () => model.propose({ install: ['«a»'] }));
    check();
    await act(async () => model.accept());
    for (const phase of ['', 'resolving', 'downloading', 'building', 'staging', 'committing']) {
      await act(async () => server.follower!.onProgress({ phase, message: '«message»', progress: 0.5 }));
      check();
    }
    await act(async () => server.follower!.onState(job('done', { plan, reload: true, failed })));
    check();
    for (const state of ['failed', 'cancelled'] as const) {
      await act(async () => {
        model.job = job(state, { error });
        model.search.type('«a»');
      });
      check();
    }
    for (const tab of ['packages', 'history', 'space']) {
      await press(`#ovl-tab-${tab}`);
      check();
      await press('summary');
      check();
    }
    expect(host.querySelector('.ovl-Tabpanel')!.textContent).toContain('«item»');
    await press('#ovl-tab-history');
    expect(host.querySelectorAll('.ovl-History li')).toHaveLength(2);
    await act(async () => {
      model.search.found = server.found;
      await model.search.toggle('«b»');
    });
    check();
    expect(host.querySelector('.ovl-Detail')).not.toBeNull();
  });
});

test('every text below cells is translated', async () => {
  const offers: Offer[] = [
    { kind: 'restoring' },
    { kind: 'installed', name: '«a»' },
    { kind: 'installed', name: '«a»', part: true },
    { kind: 'install', names: ['«a»', '«b»'] },
    { kind: 'search', text: '«a»' }
  ];
  const nothing = (): void => undefined;
  for (const offer of offers) {
    const acts = { open: nothing, rerun: nothing, restart: nothing, dismiss: nothing };
    await rendered(<Hint {...{ offer, model, trans, ...acts }} />, async host =>
      expect(bare(host)).toEqual([])
    );
  }
});
