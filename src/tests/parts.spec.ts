import { MAX_FILE } from '../given';
import { isAgainst, PackagesModel } from '../model';
import { IFound, IServer, ServerError } from '../types';
import { FakeServer, item, job, PLAN, settle } from './fake';

let server: FakeServer;
let model: PackagesModel;

const texts = { large: 'large', unknown: 'unknown', unread: 'unread' };

const found = (name: string): IFound => ({ name, version: '1.0', summary: '', where: null, source: 'popular' });

function file(name: string, text: string, size?: number): File {
  const made = new File([text], name);
  return size ? Object.defineProperty(made, 'size', { value: size }) : made;
}

/** Let a file be read: jsdom does that in a task of its own. */
const read = (): Promise<void> => new Promise(resolve => setTimeout(resolve, 20));

beforeEach(() => {
  server = new FakeServer();
  model = new PackagesModel(server);
});

afterEach(() => {
  jest.useRealTimers();
  model.dispose();
});

describe('search', () => {
  beforeEach(() => jest.useFakeTimers());

  async function pause(): Promise<void> {
    jest.advanceTimersByTime(1000);
    await settle();
  }

  test('waits until somebody stops typing', async () => {
    server.found = { query: 'num', results: [found('numpy')], index: 'skipped' };
    'numpy<2'.split('').forEach((_, n, all) => model.search.type(all.slice(0, n + 1).join('')));
    expect(server.searched).toEqual([]);
    await pause();
    expect(server.searched).toEqual(['numpy']);
    expect(model.search.found!.results).toHaveLength(1);
    model.search.type('');
    expect(model.search.found).toBeNull();
  });

  test('asks for nothing that is a list, a file or a letter', async () => {
    server.found = { query: '', results: [], index: 'skipped' };
    for (const text of ['a', 'a\nb', 'a,b', 'demo @ https://example.org/x.whl', './demo', 'pip install demo']) {
      model.search.type(text);
      await pause();
    }
    expect(server.searched).toEqual([]);
  });

  test('an answer that comes too late is not shown', async () => {
    const answers: ((index: 'found' | 'not-found') => void)[] = [];
    server.search = query =>
      new Promise(resolve => answers.push(index => resolve({ query, results: [], index })));
    model.search.type('first');
    await pause();
    model.search.type('second');
    await pause();
    answers[1]('not-found');
    await settle();
    answers[0]('found');
    await settle();
    expect(model.search.found).toEqual({ query: 'second', results: [], index: 'not-found' });
  });

  test('a search that was gone on from is ended, and is no error', async () => {
    const signals: AbortSignal[] = [];
    (server as IServer).search = (_, signal) => {
      signals.push(signal!);
      return new Promise((_, reject) => (signal!.onabort = () => reject(new Error('aborted'))));
    };
    model.search.type('demo');
    await pause();
    model.search.forget(); // the same is asked for again
    await pause();
    expect(signals.map(signal => signal.aborted)).toEqual([true, false]);
    expect([model.search.error, model.search.busy]).toEqual([null, true]);
    model.search.type('');
    await settle();
    expect([signals[1].aborted, model.search.error]).toEqual([true, null]);
  });

  test('a server without search is not asked again', async () => {
    model.search.type('demo');
    await pause();
    model.search.type('demos');
    await pause();
    expect(server.searched).toEqual(['demo']);
    expect([model.search.error, model.search.busy]).toEqual([null, false]);
  });

  test('versions are asked for once, and again when that failed', async () => {
    let asked = 0;
    server.project = async () => {
      asked += 1;
      if (asked === 1) {
        throw new ServerError({ code: 'index-unreachable', message: 'No.', hint: '' });
      }
      return { versions: [] } as any;
    };
    for (let turn = 0; turn < 3; turn++) {
      await model.search.toggle('demo');
      await model.search.toggle('demo');
    }
    expect(asked).toBe(2);
  });
});

describe('a plan that has changed', () => {
  const expect_ = { new: { demo: '1.0' } };
  const other = { ...PLAN, new: [{ name: 'demo', version: '2.0' }], expect: { new: { demo: '2.0' } } };
  const failed = (code: string, more = {}): any =>
    job('failed', { error: { code, message: '', hint: '' }, ...more });

  beforeEach(async () => {
    server.planned = { ...PLAN, expect: expect_ };
    await model.propose({ install: ['demo'] });
    await model.accept();
  });

  test('what was agreed to is sent along', () => {
    expect(server.started).toEqual([{ action: 'install', install: ['demo'], expect: expect_ }]);
  });

  test.each(['plan-changed', 'would-break'])('%s: it is asked again, with what it is now', async code => {
    server.follower!.onState(failed(code, { plan: other }));
    expect(model.job).toBeNull();
    expect(model.proposal).toEqual({ request: { install: ['demo'] }, plan: other, changed: true });
    await model.accept();
    expect(server.started[1]).toEqual({ action: 'install', install: ['demo'], expect: other.expect });
  });

  test('nobody is asked after another error, nor about what they did not ask for', async () => {
    server.follower!.onState(failed('index-unreachable', { plan: other }));
    expect([model.proposal, model.job!.state]).toEqual([null, 'failed']);
    server.current = job('running', { id: 'b2' });
    await model.refresh();
    server.follower!.onState(failed('plan-changed', { id: 'b2', plan: other }));
    expect(model.proposal).toBeNull();
  });
});

test('what was agreed to before is not asked again', async () => {
  const breaks = [{ name: 'other', version: '1' }];
  const force = { choice: 'force', message: '' };
  for (const [choices, against] of [
    [[], false],
    [[force], true]
  ] as const) {
    const plan = { ...PLAN, breaks, choices: [...choices] };
    expect(isAgainst({ request: { install: ['demo'] }, plan })).toBe(against);
    expect(isAgainst({ request: { uninstall: ['demo'] }, plan })).toBe(false);
  }
});

describe('a file', () => {
  test('without anything to decide is planned at once', async () => {
    server.given = { requirements: ['demo', 'other>=2'], left_out: [], groups: [] };
    expect(await model.given.take(file('requirements.txt', 'demo\nother>=2'), texts)).toEqual([
      'demo',
      'other>=2'
    ]);
    expect(server.texts).toEqual(['demo\nother>=2']);
    expect(model.given.found).toBeNull();
  });

  test('with groups is shown first', async () => {
    server.given = { requirements: ['demo'], left_out: [], groups: ['test'] };
    expect(await model.given.take(file('pyproject.toml', '[project]'), texts)).toBeNull();
    await model.given.choose('test', true);
    expect(model.given.found!.requirements).toEqual(['demo', 'test']);
    await model.given.choose('test', false);
    expect(model.given.found!.requirements).toEqual(['demo']);
  });

  test('that is too large is not read', async () => {
    await model.given.take(file('requirements.txt', '', MAX_FILE + 1), texts);
    expect(model.given.error!.message).toBe('large');
    expect(server.texts).toEqual([]);
  });

  test('that can’t be read, such as a folder, is said to be that', async () => {
    const real = FileReader.prototype.readAsText;
    FileReader.prototype.readAsText = function () {
      this.onerror!(new ProgressEvent('error') as any);
    };
    expect(await model.given.take(file('folder', ''), texts)).toBeNull();
    FileReader.prototype.readAsText = real;
    expect(model.given.error!.message).toBe('unread');
  });

  test('that is dropped later is the one', async () => {
    server.given = { requirements: ['demo'], left_out: [], groups: ['test'] };
    const first = model.given.take(file('a.txt', 'a'.repeat(500_000)), texts);
    const second = model.given.take(file('b.txt', 'b'), texts);
    await Promise.all([first, second]);
    expect([model.given.name, server.texts]).toEqual(['b.txt', ['b']]);
  });

  test('of requirements is understood by the page where the server reads none', async () => {
    const text = 'demo # mine\n-r other.txt\n./here\n';
    await model.given.take(file('requirements.txt', text), texts);
    expect(model.given.found!.requirements).toEqual(['demo']);
    expect(model.given.found!.left_out.map(item => item.requirement)).toEqual(['-r other.txt', './here']);
    await model.given.take(file('uv.lock', ''), texts);
    expect(model.given.error!.message).toBe('unknown');
    await read();
  });
});

describe('updates', () => {
  test('are those that are still there after a change', async () => {
    server.lists.overlay = [item('a'), item('b'), item('c')];
    const update = (name: string): any => ({ name, version: '1.0', newest: '2.0' });
    server.newer = { updates: ['a', 'b', 'c'].map(update), checked: null, unreachable: false };
    await model.updates.check();
    server.lists.overlay = [item('a', { version: '2.0' }), item('b')];
    await model.refresh();
    expect([...model.updates.newest!.keys()]).toEqual(['b']);
  });

  test('a server that knows none has no button', async () => {
    await model.updates.check();
    expect([model.updates.missing, model.updates.error]).toEqual([true, null]);
  });
});

describe('clean-up', () => {
  const entry = (what: string, bytes: number, why = ''): any => ({ what, name: what, bytes, later: 0, why });

  test('is by kind, and asked for again while it is measured', async () => {
    jest.useFakeTimers();
    server.space = { measured: null, items: [] };
    model.space.show(true);
    await settle();
    server.space = { measured: 5, items: [entry('cache', 5), entry('undo', 1), entry('cache', 6, 'busy')] };
    jest.advanceTimersByTime(4000);
    await settle();
    const kinds = model.space.kinds.map(kind => [kind.what, kind.bytes, kind.free]);
    expect(kinds).toEqual([
      ['cache', 11, true],
      ['undo', 1, true]
    ]);
  });

  test('is asked for again until it was measured after a change', async () => {
    jest.useFakeTimers();
    server.space = { measured: 5, items: [entry('cache', 5)] };
    model.space.show(true);
    await settle();
    model.space.again();
    await settle();
    server.space = { measured: 8, items: [entry('cache', 7)] };
    jest.advanceTimersByTime(4000);
    await settle();
    expect(model.space.kinds[0].bytes).toBe(7);
    server.space = { measured: 9, items: [] };
    jest.advanceTimersByTime(60_000);
    await settle();
    expect(model.space.data!.measured).toBe(8);
  });

  test('deletes one kind, or measures', async () => {
    await model.clean('cache');
    await model.clean();
    expect(server.started).toEqual([
      { action: 'clean', what: ['cache'] },
      { action: 'clean', dry_run: true }
    ]);
  });
});

describe('a job', () => {
  const seen = (state: string): void => {
    Object.defineProperty(document, 'visibilityState', { value: state, configurable: true });
    document.dispatchEvent(new Event('visibilitychange'));
  };
  let opened: number;

  beforeEach(async () => {
    jest.useFakeTimers();
    opened = 0;
    const follow = server.follow.bind(server);
    server.follow = (id, follower) => {
      opened += 1;
      return follow(id, follower);
    };
    await model.run({ action: 'sync' });
  });

  afterEach(() => seen('visible'));

  test('has no stream where nobody sees the page: a browser has few', async () => {
    let asked = 0;
    server.job = async () => {
      asked += 1;
      return job('running', { progress: asked / 10 });
    };
    seen('hidden');
    expect([opened, server.stopped]).toEqual([1, 1]);
    for (let second = 0; second < 11; second++) {
      jest.advanceTimersByTime(1000);
      await settle();
    }
    expect([asked, model.job!.progress]).toEqual([2, 0.2]);
    seen('visible');
    jest.advanceTimersByTime(60_000);
    await settle();
    expect([asked, opened]).toEqual([2, 2]);
    server.follower!.onState(job('done'));
    seen('hidden');
    seen('visible');
    expect(opened).toBe(2);
  });

  test('of a server that is away is asked for ever less often, and that is said', async () => {
    let asked = 0;
    const away = new ServerError({ code: 'unreachable', message: 'TypeError', hint: '' });
    server.job = async () => {
      asked += 1;
      throw away;
    };
    server.follower!.onLost();
    for (let second = 0; second < 120; second++) {
      await settle();
      jest.advanceTimersByTime(1000);
    }
    expect(asked).toBeLessThan(10);
    expect(model.error!.code).toBe('unreachable');
    await settle();
    server.job = async () => job('running');
    jest.advanceTimersByTime(30_000);
    await settle();
    expect([model.error, model.busy]).toEqual([null, true]);
  });
});

test('while the server thinks, it is not asked again and again', async () => {
  jest.useFakeTimers();
  await model.refresh();
  model.watch(true);
  let asked = 0;
  server.status = () => {
    asked += 1;
    return new Promise(() => undefined);
  };
  jest.advanceTimersByTime(60_000);
  expect(asked).toBe(1);
});

describe('what another page does', () => {
  beforeEach(async () => {
    jest.useFakeTimers();
    await model.refresh();
    model.watch(true);
  });

  async function later(): Promise<void> {
    jest.advanceTimersByTime(6000);
    await settle();
  }

  test('is seen: a job that runs', async () => {
    server.current = job('running', { id: 'b2' });
    await later();
    expect(model.job!.id).toBe('b2');
  });

  test('is seen: a change that is over', async () => {
    server.asked = [];
    await later();
    expect(server.asked).toEqual([]);
    server.undoable = { revision: 3, offline: true };
    await later();
    expect(server.asked).toEqual(['overlay']);
  });

  test('is not looked for where nobody sees it', async () => {
    server.current = job('running');
    model.watch(false);
    await later();
    expect(model.job).toBeNull();
    model.watch(true);
    Object.defineProperty(document, 'visibilityState', { value: 'hidden', configurable: true });
    await later();
    expect(model.job).toBeNull();
    Object.defineProperty(document, 'visibilityState', { value: 'visible', configurable: true });
    document.dispatchEvent(new Event('visibilitychange'));
    await settle();
    expect(model.busy).toBe(true);
  });
});
