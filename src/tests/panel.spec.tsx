import * as React from 'react';
import { createRoot, Root } from 'react-dom/client';

import { ITexts } from '../components/common';
import { visible } from '../components/list';
import { notices } from '../components/notices';
import { Panel } from '../components/panel';
import { PackagesModel } from '../model';
import { ServerError } from '../types';
import { FakeServer, item, job, PLAN } from './fake';

const { act } = React;

const HTML = '<img src=x onerror="document.title=1">';

const trans: ITexts = {
  __: (text, ...args) => text.replace(/%(\d)/g, (_, n) => String(args[n - 1])),
  _n: (one, many, n, ...args) => trans.__(n === 1 ? one : many, ...args)
};

let server: FakeServer;
let model: PackagesModel;
let root: Root;
let host: HTMLElement;

beforeEach(async () => {
  (globalThis as any).IS_REACT_ACT_ENVIRONMENT = true;
  server = new FakeServer();
  model = new PackagesModel(server);
  host = document.body.appendChild(document.createElement('div'));
  root = createRoot(host);
  await act(async () => root.render(<Panel {...{ model, trans }} />));
});

afterEach(() => {
  act(() => root.unmount());
  host.remove();
});

const button = (name: string): HTMLButtonElement | undefined =>
  [...host.querySelectorAll('button')].find(element => element.textContent === name);

test('text stays text', async () => {
  server.lists.overlay = [item('demo', { summary: HTML, shadows: HTML })];
  server.planned = { ...PLAN, sentences: [HTML] };
  await act(async () => model.refresh());
  await act(async () => model.propose({ install: [HTML] }));
  expect(host.querySelectorAll('img')).toHaveLength(0);
  expect(host.querySelector('.ovl-Sentences')!.textContent).toBe(HTML);
  expect(host.querySelector('.ovl-Proposal h3')!.textContent).toBe(`Install ${HTML}`);
});

test('what was found stays text, its links lead to pages only', async () => {
  jest.useFakeTimers();
  server.found = {
    query: 'demo',
    results: [{ name: HTML, version: HTML, summary: HTML, where: null, source: 'index' }],
    index: 'found'
  };
  server.versions = { name: HTML, summary: HTML, url: 'javascript:alert(1)', versions: [] } as any;
  await act(async () => {
    model.search.type('demo');
    jest.advanceTimersByTime(1000);
  });
  jest.useRealTimers();
  const name = host.querySelector<HTMLButtonElement>('.ovl-Found-name')!;
  expect(name.textContent).toContain(HTML);
  await act(async () => name.click());
  expect(name.getAttribute('aria-expanded')).toBe('true');
  expect(host.querySelector('.ovl-Detail')!.textContent).toContain(HTML);
  expect(host.querySelectorAll('img, a')).toHaveLength(0);
  await act(async () => host.querySelector<HTMLButtonElement>('.ovl-Detail .ovl-Button')!.click());
  expect(server.plans).toEqual([{ install: [HTML] }]);
});

test('a version that does not fit can’t be chosen; one that does is asked for', async () => {
  const version = (number: string, more = {}): any => ({ version: number, fits: true, wheel: true, ...more });
  server.versions = {
    versions: [
      version('3.0', { fits: false }),
      version('2.0', { yanked: true }),
      version('1.0', { wheel: false })
    ]
  } as any;
  model.search.found = {
    query: 'demo',
    results: [{ name: 'demo', version: '3.0', summary: '', where: 'base', source: 'installed' }],
    index: 'found'
  };
  await act(async () => model.search.toggle('demo'));
  const select = host.querySelector<HTMLSelectElement>('.ovl-Detail select')!;
  expect([...select.options].map(option => [option.text, option.disabled])).toEqual([
    ['Newest that fits', false],
    ['3.0 · not for this server', true],
    ['2.0 · withdrawn by its authors', false],
    ['1.0 · has to be built', false]
  ]);
  await act(async () => {
    select.value = '1.0';
    select.dispatchEvent(new Event('change', { bubbles: true }));
  });
  await act(async () => host.querySelector<HTMLButtonElement>('.ovl-Detail .ovl-Button')!.click());
  expect(server.plans).toEqual([{ install: ['demo==1.0'] }]);
});

test('why there are no versions is said, and what was shown is shown again after a change', async () => {
  const results = [{ name: 'demo', version: null, summary: '', where: null, source: 'popular' as const }];
  model.search.found = { query: 'demo', results, index: 'found' };
  server.project = async () => {
    throw new ServerError({ code: 'index-unreachable', message: 'No index.', hint: '' });
  };
  await act(async () => model.search.toggle('demo'));
  await act(async () => model.setFilter(''));
  expect(host.querySelector('.ovl-Detail')!.textContent).toBe('No index.');
  server.project = async () => ({ versions: [] }) as any;
  await act(async () => {
    model.search.text = 'demo'; // as where it was found
    model.search.forget();
  });
  expect(host.querySelector('.ovl-Detail select')).not.toBeNull();
});

test('what is typed stays when another page installs something', async () => {
  await act(async () => model.search.type('half a na'));
  server.current = job('running', { id: 'b2' });
  await act(async () => model.refresh());
  expect(host.querySelector('.ovl-Progress')).not.toBeNull();
  expect(host.querySelector('textarea')!.value).toBe('half a na');
});

test('in safe mode nothing is said to be available, nor absent', async () => {
  const status = server.status.bind(server);
  server.status = async () => ({ ...(await status()), mode: 'safe' });
  await act(async () => model.refresh());
  expect(host.querySelector('.ovl-Empty')!.textContent).toContain('does not list them');
  await act(async () => model.propose({ install: ['demo'] }));
  await act(async () => model.accept());
  await act(async () => server.follower!.onState(job('done')));
  expect(host.querySelector('.ovl-Progress')!.textContent).toContain('once safe mode is left');
});

test('what the rules refuse is said, and not offered', async () => {
  model.search.found = {
    query: 'demo',
    results: [
      { name: 'demo', version: '1.0', summary: '', where: null, source: 'index', blocked: 'The rule says no.' }
    ],
    index: 'found'
  };
  await act(async () => model.search.toggle('demo'));
  expect(host.querySelector('.ovl-Detail')!.textContent).toBe('The rule says no.');
  expect(host.querySelectorAll('.ovl-Found .ovl-Button')).toHaveLength(0);
});

test('what the search says of the index', async () => {
  const said = async (index: any): Promise<string> => {
    model.search.found = { query: 'demo', results: [], index };
    await act(async () => model.search.toggle('demo'));
    return host.querySelector('#ovl-found')!.textContent!;
  };
  expect(await said('not-found')).toContain('no package with just this name');
  expect(await said('unreachable')).toContain('can’t be reached');
  expect(await said('skipped')).toBe('Nothing found.');
});

test('a plan offers what else could be asked for, and says when it has changed', async () => {
  const choices = [
    { choice: 'cancel', message: 'Leave.' },
    { choice: 'force', message: 'Anyway.' },
    { choice: 'change', message: `${HTML} fits.`, install: ['demo'] },
    { choice: 'of-the-future', message: '?' }
  ];
  server.planned = { ...PLAN, breaks: [{ name: 'other', version: '1' }], choices };
  await act(async () => model.propose({ install: ['demo<2'] }));
  expect(button('Install anyway')).toBeDefined();
  expect(host.querySelector('.ovl-Choices')!.textContent).toContain(`${HTML} fits.`);
  server.planned = PLAN;
  await act(async () => button('Use that…')!.click());
  expect(server.plans[1]).toEqual({ install: ['demo'] });
  expect(button('Install anyway')).toBeUndefined();
  model.proposal = { ...model.proposal!, changed: true };
  await act(async () => model.setFilter(''));
  expect(host.querySelector('.ovl-Proposal [role=alert]')!.textContent).toContain('Nothing was changed');
});

test('the focus goes back to where it was', async () => {
  const box = host.querySelector('textarea')!;
  const refresh = button('Refresh')!;
  for (const element of [refresh, box]) {
    element.focus();
    await act(async () => model.propose({ install: ['demo'] }));
    expect(document.activeElement!.className).toContain('ovl-Proposal');
    await act(async () => button('Cancel')!.click());
    await act(async () => new Promise(resolve => setTimeout(resolve, 5)));
    expect(document.activeElement).toBe(element);
  }
});

test('the focus is not lost with what is closed', async () => {
  const box = host.querySelector('textarea')!;
  const status = await server.status();
  model.job = job('done');
  model.status = { ...status, notices: [{ code: 'adopted', message: 'It is.', hint: '' }] };
  await act(async () => model.setFilter(''));
  const dismiss = host.querySelector<HTMLButtonElement>('.ovl-Notice-dismiss')!;
  for (const element of [button('Close')!, dismiss]) {
    box.blur();
    element.focus();
    await act(async () => element.click());
    await act(async () => new Promise(resolve => setTimeout(resolve, 5)));
    expect(element.isConnected).toBe(false);
    expect(document.activeElement).toBe(box);
  }
});

test('what is newer, and whose it is', async () => {
  server.lists.overlay = [item('demo'), item('theirs', { administrator: true }), item('other')];
  server.newer = {
    updates: [{ name: 'demo', version: '1.0', newest: HTML }],
    checked: null,
    unreachable: false
  };
  await act(async () => model.refresh());
  const names = (): (string | null)[] =>
    [...host.querySelectorAll('[role=listitem]')].map(row => row.getAttribute('data-name'));
  expect(names()).toEqual(['demo', 'other']);
  await act(async () => button('Check for updates')!.click());
  expect(host.querySelector('[data-name=demo]')!.textContent).toContain(`${HTML} is available`);
  expect(host.querySelector('[data-name=other]')!.textContent).not.toContain('available');
  await act(async () => button('Upgrade…')!.click());
  await act(async () => model.dismiss());
  await act(async () => button('Upgrade all…')!.click());
  expect(server.plans).toEqual([{ upgrade: ['demo'] }, { upgrade: ['demo'] }]);
  expect(host.querySelector('.ovl-Proposal h3')!.textContent).toBe('Upgrade demo');
  await act(async () => model.dismiss());
  const select = host.querySelector<HTMLSelectElement>('.ovl-Filter select')!;
  await act(async () => {
    select.value = 'administrator';
    select.dispatchEvent(new Event('change', { bubbles: true }));
  });
  expect(names()).toEqual(['theirs']);
  expect(host.querySelectorAll('[role=listitem] button')).toHaveLength(0);
});

test('history says what came and went, and goes back only when asked twice', async () => {
  const plan = { ...PLAN, removes: [{ name: HTML, version: '1' }] };
  const revision = (id: number): any => ({ id, when: '2026-01-01', action: 'install', argv: [HTML], plan });
  server.history = [revision(2), revision(1)];
  server.undoable = { revision: 2, offline: false };
  await act(async () => model.refresh());
  await act(async () => button('History')!.click());
  expect(button('Undo')!.getAttribute('aria-label')).toContain('needs a download');
  const first = host.querySelector('[data-revision="1"]')!;
  expect(first.textContent).toContain('demo 1.0');
  expect(host.querySelectorAll('img')).toHaveLength(0);
  await act(async () => button('Go back to here…')!.click());
  expect(server.started).toEqual([]);
  await act(async () => button('Go back')!.click());
  expect(server.started).toEqual([{ action: 'restore', revision: 1 }]);
});

test('clean-up says what is lost, and asks before what can’t be had back', async () => {
  const entry = (what: string, why = ''): any => ({ what, name: HTML, bytes: 1000, later: 0, why });
  server.space = { measured: 1, items: [entry('cache'), entry('envs', 'busy'), entry('kept')] };
  await act(async () => model.refresh());
  await act(async () => button('Clean up')!.click());
  const kind = (what: string): HTMLElement => host.querySelector<HTMLElement>(`[data-what=${what}]`)!;
  expect(kind('cache').textContent).toContain('Nothing is lost');
  expect(host.querySelectorAll('img')).toHaveLength(0);
  expect(kind('envs').querySelector('button')!.disabled).toBe(true);
  await act(async () => kind('kept').querySelector('button')!.click());
  expect(server.started).toEqual([]);
  await act(async () => button('Delete for good')!.click());
  expect(server.started).toEqual([{ action: 'clean', what: ['kept'] }]);
});

test('a dropped file is read, and said to be where it lands', async () => {
  server.given = {
    requirements: ['demo'],
    left_out: [{ requirement: HTML, reason: HTML, hint: '' }],
    groups: [HTML]
  };
  const zone = host.querySelector('.ovl-Panel-content')!;
  const drag = (type: string): Event =>
    Object.assign(new Event(type, { bubbles: true, cancelable: true }), {
      dataTransfer: { types: ['Files'], files: [new File(['demo'], HTML)], dropEffect: '' }
    });
  await act(async () => void zone.dispatchEvent(drag('dragover')));
  expect(host.querySelector('.ovl-Drop')).not.toBeNull();
  await act(async () => {
    zone.dispatchEvent(drag('drop'));
    await new Promise(resolve => setTimeout(resolve, 50));
  });
  expect(host.querySelector('.ovl-Drop')).toBeNull();
  expect(host.querySelector('.ovl-Proposal h3')!.textContent).toBe(HTML);
  expect(host.querySelectorAll('img')).toHaveLength(0);
  await act(async () => host.querySelector<HTMLButtonElement>('.ovl-Proposal .ovl-mod-accept')!.click());
  expect(server.plans).toEqual([{ install: ['demo'] }]);
  await act(async () => button('Install')!.click());
  expect(model.given.found).toBeNull();
});

test('a thousand packages are a few rows', async () => {
  server.lists.overlay = Array.from({ length: 1000 }, (_, n) => item(`demo-${n}`));
  await act(async () => model.refresh());
  const rows = host.querySelectorAll('[role=listitem]');
  expect(rows.length).toBeLessThan(40);
  expect(rows[0].getAttribute('aria-setsize')).toBe('1000');
  const list = host.querySelector('.ovl-List')!;
  await act(async () => {
    list.scrollTop = 44 * 500;
    list.dispatchEvent(new Event('scroll'));
  });
  expect(list.querySelectorAll('[role=listitem][tabindex="0"]')).toHaveLength(1);
  await act(async () => model.setFilter('demo-99'));
  expect(host.querySelectorAll('[role=listitem]')).toHaveLength(11);
});

test('what is in view, with a margin', () => {
  expect(visible(0, 440, 1000)).toEqual({ first: 0, last: 16 });
  expect(visible(44 * 500, 440, 1000)).toEqual({ first: 494, last: 516 });
  expect(visible(44 * 995, 440, 1000).last).toBe(1000);
  expect(visible(44 * 500, 440, 11)).toEqual({ first: 0, last: 11 });
});

test('what breaks something is installed anyway or not at all', async () => {
  server.planned = { ...PLAN, breaks: [{ name: 'other', version: '1' }] };
  await act(async () => model.propose({ install: ['demo'] }));
  expect(button('Install anyway')).toBeDefined();
  server.planned = { ...PLAN, blocked: [{ name: 'demo', version: '1' }] };
  await act(async () => model.propose({ install: ['demo'] }));
  expect(button('Install anyway') ?? button('Install')).toBeUndefined();
  await act(async () => button('Cancel')!.click());
  expect(host.querySelector('.ovl-Proposal')).toBeNull();
});

test('the state of the server is said', async () => {
  const status = { ...(await server.status()), mode: 'safe', restore: { state: 'running', why: null } };
  expect(notices(status, trans).map(notice => notice.code)).toEqual(['safe-mode', 'restoring']);
  expect(notices({ ...status, notices: [{ code: 'safe-start', message: '', hint: '' }] }, trans)).toHaveLength(
    2
  );
});
