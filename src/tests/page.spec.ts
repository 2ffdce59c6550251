/*
 * What we do to the page around the panel. JupyterLab's own part of it is put in place of: it is tested in tests/ui.
 */

import { showErrorMessage } from '@jupyterlab/apputils';

import { announce } from '../announce';
import { PackagesModel } from '../model';
import { Kernels } from '../notebook/kernels';
import { watchCells } from '../notebook/watch';
import { restartServer } from '../restart';
import { ServerError } from '../types';
import { FakeServer, job, PLAN, settle } from './fake';

const asked: { title: string; body: string }[] = [];
let agree: boolean[] = [];

jest.mock('@jupyterlab/apputils', () => ({
  Dialog: class {
    static cancelButton(): object {
      return {};
    }
    static okButton(): object {
      return {};
    }
    static warnButton(): object {
      return {};
    }
    launch = async (): Promise<void> => undefined;
  },
  SessionContextDialogs: class {},
  showErrorMessage: jest.fn(),
  Notification: { info: jest.fn(() => 'id'), update: jest.fn() },
  showDialog: async (options: { title: string; body: string }) => {
    asked.push(options);
    return { button: { accept: agree.shift() ?? false } };
  }
}));
jest.mock('../hub', () => ({
  hubOfPage: () => ({ host: '', prefix: '/hub/', user: 'me', server: '' }),
  stopped: () => new Promise(() => undefined)
}));
jest.mock('@jupyterlab/notebook', () => {
  const { Signal } = jest.requireActual('@lumino/signaling');
  const owner = {};
  return {
    NotebookActions: { executed: new Signal(owner), executionScheduled: new Signal(owner), run: jest.fn() }
  };
});
jest.mock('../notebook/widget', () => ({
  HintWidget: class {
    constructor(readonly props: unknown) {}
    dispose = (): void => undefined;
  }
}));

const trans: any = {
  __: (text: string, ...args: any[]) => text.replace(/%(\d)/g, (_, n) => String(args[n - 1])),
  _n: (one: string, many: string, n: number, ...args: any[]) => trans.__(n === 1 ? one : many, ...args)
};

beforeEach(() => {
  asked.length = 0;
  agree = [];
});

describe('a restart in safe mode', () => {
  let done: string[];
  let unsaved: string[];
  let problem: Error | null;

  beforeEach(() => {
    done = [];
    unsaved = [];
    problem = null;
  });

  async function restart(saving: () => Promise<void> = async () => undefined): Promise<void> {
    const server: any = {
      nextStart: async (mode: string) => void done.push(mode),
      shutdown: async () => {
        done.push('shutdown');
        if (problem) {
          throw problem;
        }
      }
    };
    const commands: any = {
      hasCommand: () => true,
      execute: async () => {
        done.push('save');
        await saving();
      }
    };
    void restartServer('safe', server, commands, trans, () => unsaved);
    await settle();
    await settle();
  }

  test('saves before anything else', async () => {
    agree = [true];
    await restart();
    expect(done).toEqual(['save', 'safe', 'shutdown']);
  });

  test('does not go on with what could not be saved, unless somebody wants that', async () => {
    const full = (): Promise<void> => Promise.reject(new Error('No space left on device'));
    unsaved = ['a.ipynb'];
    agree = [true, false];
    await restart(full);
    expect(done).toEqual(['save']);
    expect(asked[1].body).toContain('a.ipynb');
    agree = [true, true];
    await restart(full);
    expect(done).toEqual(['save', 'save', 'safe', 'shutdown']);
  });

  test('that fails is not made up for at some other start', async () => {
    agree = [true];
    problem = new ServerError({ code: 'forbidden', message: 'No.', hint: '' });
    await restart();
    expect(done).toEqual(['save', 'safe', 'shutdown', 'normal']);
    expect(asked[1].body).toContain('No.');
  });

  test('needs no answer of a server that stops', async () => {
    agree = [true];
    problem = new ServerError({ code: 'unreachable', message: 'TypeError', hint: '' });
    await restart();
    expect(done).toEqual(['save', 'safe', 'shutdown']);
    expect(asked).toHaveLength(1);
  });
});

test('nobody is told of what comes back while nobody sees the page', async () => {
  jest.useFakeTimers();
  let looks = 0;
  const status = { mode: 'normal', restore: { state: 'running' } };
  const server: any = {
    status: async () => {
      looks += 1;
      return status;
    }
  };
  const nothing = (): void => undefined;
  const seen = jest.fn();
  void announce(server, trans, nothing, nothing, seen);
  const wait = async (): Promise<void> => {
    await settle();
    jest.advanceTimersByTime(5000);
    await settle();
  };
  await wait();
  expect(looks).toBe(2);
  Object.defineProperty(document, 'visibilityState', { value: 'hidden', configurable: true });
  await wait();
  expect(looks).toBe(2);
  Object.defineProperty(document, 'visibilityState', { value: 'visible', configurable: true });
  await wait();
  expect(looks).toBe(3);
  expect(seen).toHaveBeenCalledTimes(1);
  jest.useRealTimers();
});

test('a kernel that could not be restarted is said to be that, and stays in the list', async () => {
  const running = [{ kernel: { id: 'k1', name: 'python3' }, name: 'one', path: '' }];
  const answer = { ok: false, status: 500, headers: new Map(), json: async () => ({ message: 'No.' }) };
  const signal = { connect: () => true };
  const services: any = {
    sessions: { runningChanged: signal, running: () => running },
    kernelspecs: { specs: { kernelspecs: { python3: {}, 'python3-base': {} } } },
    serverSettings: {
      baseUrl: 'http://localhost/',
      init: {},
      fetch: async () => answer,
      Request: class {
        headers = new Map();
      }
    }
  };
  const model = new PackagesModel(new FakeServer());
  const kernels = new Kernels(services, model, null, trans);
  model.job = job('done', { plan: { ...PLAN, needs_restart: true } });
  model.setFilter('');
  expect(kernels.stale).toEqual([{ id: 'k1', name: 'one' }]);
  agree = [false];
  await kernels.restart('k1');
  expect(showErrorMessage).not.toHaveBeenCalled();
  agree = [true];
  await kernels.restart('k1');
  expect(showErrorMessage).toHaveBeenCalledTimes(1);
  expect(kernels.stale).toHaveLength(1);
  Object.assign(answer, { ok: true, status: 200, json: async () => ({ id: 'k1', name: 'python3' }) });
  agree = [true];
  await kernels.restart('k1');
  expect(kernels.stale).toEqual([]);
});

describe('below a cell', () => {
  const { NotebookActions } = jest.requireMock('@jupyterlab/notebook');
  const answers: (() => void)[] = [];
  const notebook = { activate: jest.fn() };
  const error = (name = 'ModuleNotFoundError'): object => ({
    errorName: name,
    errorValue: "No module named 'cv2'"
  });
  let kernel: string;
  let shown: any[];
  let cell: any;

  const panel = {
    content: notebook,
    sessionContext: {
      session: {
        kernel: {
          get name() {
            return kernel;
          }
        }
      }
    }
  };
  const failed = (more: object): boolean =>
    NotebookActions.executed.emit({ notebook, cell, success: false, ...more });

  beforeAll(() =>
    watchCells({
      tracker: { find: (fits: any) => [panel].find(fits) } as any,
      kernels: { isOurs: (name: string) => name === 'python3' } as any,
      model: {} as any,
      server: {
        module: (module: string) =>
          new Promise(resolve => answers.push(() => resolve({ module, packages: [], restoring: false })))
      } as any,
      trans,
      open: () => undefined,
      wanted: () => true
    })
  );

  beforeEach(() => {
    answers.length = 0;
    kernel = 'python3';
    shown = [];
    cell = {
      isDisposed: false,
      layout: { widgets: [], insertWidget: (_: number, hint: unknown) => shown.push(hint) }
    };
  });

  test('something is said of a module that is missing in our kernel, and of nothing else', async () => {
    failed({ error: error('ImportError') });
    failed({ error: error(), success: true });
    failed({});
    kernel = 'ir';
    failed({ error: error() });
    expect(answers).toHaveLength(0);
    kernel = 'python3';
    failed({ error: error() });
    answers[0]();
    await settle();
    expect(shown).toHaveLength(1);
    shown[0].props.dismiss();
    expect(notebook.activate).toHaveBeenCalledTimes(1);
  });

  test('nothing is said of a run that another one has followed', async () => {
    failed({ error: error() });
    NotebookActions.executionScheduled.emit({ notebook, cell });
    failed({ error: null, success: true });
    answers[0]();
    await settle();
    expect(shown).toEqual([]);
    failed({ error: error() });
    NotebookActions.executionScheduled.emit({ notebook, cell });
    failed({ error: error() });
    answers.forEach(answer => answer());
    await settle();
    expect(shown).toHaveLength(1);
  });
});
