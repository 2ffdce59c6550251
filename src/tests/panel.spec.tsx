import * as React from 'react';
import { createRoot, Root } from 'react-dom/client';

import { ITexts } from '../components/common';
import { visible } from '../components/list';
import { notices } from '../components/notices';
import { Panel } from '../components/panel';
import { PackagesModel } from '../model';
import { FakeServer, item, PLAN } from './fake';

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

test('a thousand packages are a few rows', async () => {
  server.lists.overlay = Array.from({ length: 1000 }, (_, n) => item(`demo-${n}`));
  await act(async () => model.refresh());
  const rows = host.querySelectorAll('[role=listitem]');
  expect(rows.length).toBeLessThan(40);
  expect(rows[0].getAttribute('aria-setsize')).toBe('1000');
  await act(async () => model.setFilter('demo-99'));
  expect(host.querySelectorAll('[role=listitem]')).toHaveLength(11);
});

test('what is in view, with a margin', () => {
  expect(visible(0, 440, 1000)).toEqual({ first: 0, last: 16 });
  expect(visible(44 * 500, 440, 1000)).toEqual({ first: 494, last: 516 });
  expect(visible(44 * 995, 440, 1000).last).toBe(1000);
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
