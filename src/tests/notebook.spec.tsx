import * as React from 'react';
import { createRoot, Root } from 'react-dom/client';

import { IActions, NO_ACTIONS, Page } from '../actions';
import { ITexts } from '../components/common';
import { condition, notices, Notices, SafeMode, severity } from '../components/notices';
import { Progress } from '../components/progress';
import { spawnAddress } from '../hub';
import { PackagesModel } from '../model';
import { Hint, IHintProps } from '../notebook/hint';
import { missingModule, Offer, offer, overlayKernel } from '../notebook/missing';
import { IJob } from '../types';
import { FakeServer, job, PLAN } from './fake';

const { act } = React;

const trans: ITexts = {
  __: (text, ...args) => text.replace(/%(\d)/g, (_, n) => String(args[n - 1])),
  _n: (one, many, n, ...args) => trans.__(n === 1 ? one : many, ...args)
};

let server: FakeServer;
let model: PackagesModel;
let root: Root;
let host: HTMLElement;

beforeEach(() => {
  (globalThis as any).IS_REACT_ACT_ENVIRONMENT = true;
  server = new FakeServer();
  model = new PackagesModel(server);
  host = document.body.appendChild(document.createElement('div'));
  root = createRoot(host);
});

afterEach(() => {
  act(() => root.unmount());
  host.remove();
});

const show = (element: JSX.Element, page: Partial<IActions> = {}): Promise<void> =>
  act(async () => root.render(<Page.Provider value={{ ...NO_ACTIONS, ...page }}>{element}</Page.Provider>));
const buttons = (): (string | null)[] =>
  [...host.querySelectorAll('button.ovl-Button')].map(b => b.textContent);
const click = (name: string): Promise<void> =>
  act(async () =>
    [...host.querySelectorAll('button')]
      .find(b => b.textContent === name || b.getAttribute('aria-label') === name)!
      .click()
  );

describe('the module that a cell did not find', () => {
  test.each([
    ["No module named 'cv2'", 'cv2'],
    ["No module named 'foo.bar'", 'foo.bar'],
    ["No module named 'été'", 'été'],
    ["No module named 'foo.bar'; 'foo' is not a package", null],
    ["No module named 'a b'", null],
    ["No module named '../x'", null],
    ["No module named 'a' or 'b'", null],
    [`No module named '${'a'.repeat(300)}'`, null],
    ["cannot import name 'x' from 'y'", null]
  ])('%s', (value, module) => {
    expect(missingModule('ModuleNotFoundError', value)).toBe(module);
    expect(missingModule('ImportError', value)).toBeNull();
  });
});

test('kernels of the overlay, by the names that there are', () => {
  expect(overlayKernel(['python3', 'python3-base', 'ir'])).toBe('python3');
  expect(overlayKernel(['python3', 'python3-overlay'])).toBe('python3-overlay');
  expect(overlayKernel(['python3', 'bash'])).toBeNull(); // safe mode, or a server without an overlay
  expect(overlayKernel([])).toBeNull();
});

describe('what is offered for a module', () => {
  const known = (names: string[], more = {}): any => ({
    module: 'm',
    restoring: false,
    packages: names.map(name => ({ name, source: 'known', installed: null, ...more }))
  });

  test('known names only', () => {
    expect(offer('m', known(['a', 'b', 'c', 'd']))).toEqual({ kind: 'install', names: ['a', 'b', 'c'] });
    expect(offer('foo.bar', known([]))).toEqual({ kind: 'search', text: 'foo' });
    expect(offer('m', known(['a'], { installed: '1.0' }))).toEqual({ kind: 'installed', name: 'a' });
    const part = { kind: 'installed', name: 'a', part: true };
    expect(offer('m.old', known(['a'], { installed: '1.0' }))).toEqual(part);
    expect(offer('m', { ...known(['a']), restoring: true })).toEqual({ kind: 'restoring' });
  });

  const props = (what: Offer, more: Partial<IHintProps> = {}): IHintProps => {
    const nothing = (): void => undefined;
    const acts = { open: nothing, rerun: nothing, restart: nothing, dismiss: nothing };
    return { offer: what, model, trans, ...acts, ...more };
  };

  test('a known package is one click and a consent away, then the cell is run again', async () => {
    const open = jest.fn();
    const rerun = jest.fn();
    await show(<Hint {...props({ kind: 'install', names: ['demo'] }, { open, rerun })} />);
    expect(buttons()).toEqual(['Install demo']);
    await click('Install demo');
    expect(open).toHaveBeenCalledTimes(1);
    expect(model.proposal!.request).toEqual({ install: ['demo'] });
    expect(server.started).toEqual([]);
    await act(async () => model.accept());
    expect(buttons()).toEqual(['Install demo']);
    await act(async () => server.follower!.onState(job('done', { plan: PLAN })));
    expect(buttons()).toEqual(['Run the cell again']);
    await act(async () => model.dismissJob());
    await click('Run the cell again');
    expect(rerun).toHaveBeenCalledTimes(1);
  });

  test('what else is installed meanwhile is not it', async () => {
    await show(<Hint {...props({ kind: 'install', names: ['demo'] })} />);
    await click('Install demo');
    await act(async () => model.dismiss());
    await act(async () => model.propose({ install: ['other'] }));
    await act(async () => model.accept());
    const plan = { ...PLAN, new: [{ name: 'other', version: '1' }] };
    await act(async () => server.follower!.onState(job('done', { plan })));
    expect(buttons()).toEqual(['Install demo']);
  });

  test('an unknown one is only searched for', async () => {
    const open = jest.fn();
    await show(<Hint {...props({ kind: 'search', text: 'foo' }, { open })} />);
    expect(buttons()).toEqual(['Search for foo…']);
    await click('Search for foo…');
    expect(open).toHaveBeenCalledTimes(1);
    expect(model.search.text).toBe('foo');
    expect(model.proposal).toBeNull();
  });

  test('while packages come back, nothing is installed', async () => {
    await show(<Hint {...props({ kind: 'restoring' })} />);
    expect(buttons()).toEqual(['Run the cell again']);
    expect(host.textContent).toContain('coming back');
  });

  test('it can be sent away, by key too', async () => {
    const dismiss = jest.fn();
    await show(<Hint {...props({ kind: 'search', text: 'foo' }, { dismiss })} />);
    await click('Dismiss: missing package');
    const escape = new KeyboardEvent('keydown', { key: 'Escape', bubbles: true });
    await act(async () => host.querySelector('button')!.dispatchEvent(escape));
    expect(dismiss).toHaveBeenCalledTimes(2);
  });
});

describe('after a change', () => {
  const after = async (more: Partial<IJob>, page: Partial<IActions> = {}): Promise<void> => {
    model.job = job('done', { plan: PLAN, ...more });
    await show(<Progress {...{ model, trans }} />, page);
  };

  test('nothing to do', async () => {
    await after({});
    expect(host.textContent).toContain('available now');
    expect(buttons()).toEqual(['Close']);
  });

  test('the kernels that need it, by name', async () => {
    const restartKernel = jest.fn();
    await after({}, { stale: [{ id: 'k1', name: 'one.ipynb' }], restartKernel });
    expect(host.textContent).not.toContain('available now');
    expect(host.textContent).toContain('one.ipynb');
    await click('Restart this kernel: one.ipynb');
    expect(restartKernel).toHaveBeenCalledWith('k1');
  });

  test('the page, where widgets came', async () => {
    const reload = jest.fn();
    await after({ reload: true }, { reload });
    expect(host.textContent).not.toContain('available now');
    await click('Reload the page for its widgets');
    expect(reload).toHaveBeenCalledTimes(1);
  });

  test('what failed needs nothing', async () => {
    model.job = job('failed', { reload: true });
    await show(<Progress {...{ model, trans }} />);
    expect(buttons()).toEqual(['Close']);
  });
});

describe('notices', () => {
  const told = async (codes: string[], more = {}): Promise<void> => {
    const found = codes.map(code => ({ code, message: `about ${code}`, hint: '' }));
    model.status = { ...(await server.status()), notices: found, ...more };
    await show(<Notices {...{ model, trans }} />);
  };
  const shown = (): (string | null)[] =>
    [...host.querySelectorAll('[data-code]')].map(e => e.getAttribute('data-code'));

  test('the gravest is seen, the others are a click away', async () => {
    await told(['adopted', 'kernel-base', 'home-full']);
    expect(shown()).toEqual(['home-full']);
    await click('2 more notices');
    expect(shown()).toEqual(['home-full', 'kernel-base', 'adopted']);
    expect(severity('never-heard-of')).toBe('warning');
  });

  test('dismissed until something else is said', async () => {
    await told(['adopted']);
    await click('Dismiss: about adopted');
    expect(shown()).toEqual([]);
    await told(['kernel-base', 'adopted']);
    expect(shown()).toEqual(['kernel-base']);
  });

  test('a button where something can be done', async () => {
    await told(['requirements-pending']);
    await click('Apply');
    expect(server.started).toEqual([{ action: 'sync' }]);
    // of what only the doctor repairs, the hint says so
    for (const code of ['kernel-base', 'packages-partial']) {
      await told([code]);
      expect(buttons()).toEqual([]);
    }
  });

  test('space is freed where it is shown what takes it', async () => {
    const onSpace = jest.fn();
    await told(['home-full']);
    expect(buttons()).toEqual([]);
    await show(<Notices {...{ model, trans, onSpace }} />);
    await click('Clean up…');
    expect(onSpace).toHaveBeenCalledTimes(1);
  });

  test('the way into safe mode and out of it', async () => {
    const restartServer = jest.fn();
    await told([]);
    await show(<SafeMode {...{ model, trans }} />, { restartServer });
    await click('Restart in safe mode…');
    await told([], { mode: 'safe' });
    await show(<Notices {...{ model, trans }} />, { restartServer });
    await click('Leave safe mode…');
    expect(restartServer.mock.calls).toEqual([['safe'], ['normal']]);
    await show(<SafeMode {...{ model, trans }} />);
    expect(buttons()).toEqual([]);
  });

  test('little space is said before there is none', async () => {
    const status = { ...(await server.status()), sizes: { overlay: 1, free: 100_000_000 } };
    expect(notices(status, trans).map(item => item.code)).toEqual(['space-short']);
  });
});

test('what is told to those who have the panel closed', async () => {
  const status = await server.status();
  expect(condition(status)).toBe('normal');
  expect(condition({ ...status, mode: 'safe' })).toBe('safe');
  expect(condition({ ...status, restore: { state: 'running' } })).toBe('restoring');
  expect(condition({ ...status, restore: { state: 'waiting' } })).toBe('normal');
});

test('where the hub starts a server', () => {
  const hub = { host: '', prefix: '/jupyter/hub/', user: 'a b', server: '' };
  expect(spawnAddress(hub, '/user/a%20b/lab?x=1')).toBe(
    '/jupyter/hub/spawn/a%20b?next=%2Fuser%2Fa%2520b%2Flab%3Fx%3D1'
  );
  const other = { ...hub, host: 'https://hub.example.org', server: 'gpu' };
  expect(spawnAddress(other, '/')).toBe('https://hub.example.org/jupyter/hub/spawn/a%20b/gpu?next=%2F');
});
