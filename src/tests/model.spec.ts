import { PackagesModel } from '../model';
import { IServer, ServerError } from '../types';
import { FakeServer, PLAN, item, job, settle } from './fake';

let server: FakeServer;
let model: PackagesModel;

beforeEach(() => {
  server = new FakeServer();
  model = new PackagesModel(server);
});

async function proposed(request = { install: ['demo'] }): Promise<void> {
  await model.propose(request);
}

test('nothing starts before consent', async () => {
  await proposed();
  expect(model.proposal!.plan).toEqual(PLAN);
  model.dismiss();
  await model.accept();
  expect(server.started).toEqual([]);
});

test('a job is followed to its end, and the lists are read again', async () => {
  await proposed();
  await model.accept();
  expect(server.started).toEqual([{ action: 'install', install: ['demo'] }]);
  expect(model.proposal).toBeNull();
  const packages = [{ name: 'demo', state: 'downloading', bytes: 1, total: 2 }];
  server.follower!.onProgress({ phase: 'downloading', message: 'demo', progress: 0.5, packages });
  server.follower!.onProgress({ phase: 'staging', message: '', progress: 0.7 });
  expect([model.busy, model.job!.phase, model.job!.progress]).toEqual([true, 'staging', 0.7]);
  expect(model.job!.packages).toEqual(packages);
  server.lists.overlay = [item('demo')];
  server.follower!.onState(job('done'));
  await settle();
  expect([model.busy, model.count, server.stopped]).toEqual([false, 1, 1]);
});

test('what would break something is forced, by servers that know how', async () => {
  server.planned = { ...PLAN, breaks: [{ name: 'other', version: '1' }] };
  await proposed();
  await model.accept();
  expect(server.started).toEqual([{ action: 'install', install: ['demo'], force: true }]);
});

test('and without the field by those that do not', async () => {
  server.knowsForce = false;
  server.planned = { ...PLAN, breaks: [{ name: 'other', version: '1' }] };
  await proposed();
  await model.accept();
  expect(server.started).toEqual([{ action: 'install', install: ['demo'] }]);
  expect(model.error).toBeNull();
});

test('what is refused is said and leaves nothing to consent to', async () => {
  server.refuse = new ServerError({ code: 'policy', message: 'No.', hint: 'Ask.' });
  await proposed();
  expect([model.proposal, model.error!.code]).toEqual([null, 'policy']);
});

test('a plan that nobody waits for any more is dropped', async () => {
  const waiting = proposed();
  model.dismiss();
  await waiting;
  expect(model.proposal).toBeNull();
});

test('a lost stream is no lost job', async () => {
  await proposed();
  await model.accept();
  server.follower!.onLost();
  await settle();
  expect(model.job!.state).toBe('done');
});

test('a job that another tab began is followed', async () => {
  server.current = job('running', { id: 'b2' });
  await model.refresh();
  expect(model.busy).toBe(true);
  await model.cancel();
  expect(server.cancelled).toEqual(['b2']);
});

test('other lists are asked for when they are shown, and again after a change', async () => {
  await model.refresh();
  expect(server.asked).toEqual(['overlay']);
  await model.show('base');
  await model.show('overlay');
  await model.show('base');
  expect(server.asked).toEqual(['overlay', 'base']);
  await model.refresh();
  expect(server.asked).toEqual(['overlay', 'base', 'overlay', 'base']);
});

test('in safe mode there is no overlay, and that is no error', async () => {
  server.packages = async () => {
    throw new ServerError({ code: 'no-overlay', message: 'none', hint: '' });
  };
  await model.refresh();
  expect(model.error).toBeNull();
  expect(model.packages).toEqual([]);
  expect(model.status).not.toBeNull();
});

test('a list that is chosen while everything is read again does not get lost', async () => {
  server.lists.base = [item('numpy', { where: 'base' })];
  const reading = model.refresh();
  await model.show('base');
  await reading;
  expect(model.packages).toHaveLength(1);
});

test('what is said of a lost connection goes away with it', async () => {
  await model.refresh();
  const revisions = server.revisions;
  server.revisions = () =>
    Promise.reject(new ServerError({ code: 'unreachable', message: 'TypeError', hint: '' }));
  await model.refresh();
  expect(model.error!.code).toBe('unreachable');
  server.revisions = revisions;
  await model.glance();
  expect(model.error).toBeNull();
});

test('a button that is pressed twice starts one job', async () => {
  await proposed();
  await Promise.all([model.accept(), model.accept()]);
  await Promise.all([model.undo(1), model.undo(1)]);
  expect(server.started.map(request => request.action)).toEqual(['install', 'undo']);
});

test('while the server has not answered yet, nothing else can be asked for', async () => {
  model.job = job('done');
  const starting = model.undo(1);
  expect([model.busy, model.running]).toEqual([true, false]);
  await starting;
  expect(model.running).toBe(true);
  server.start = () => Promise.reject(new ServerError({ code: 'busy', message: 'No.', hint: '' }));
  server.follower!.onState(job('done'));
  await model.undo(1);
  expect([model.busy, model.error!.code]).toEqual([false, 'busy']);
});

test('what is typed goes with what was agreed to here, not with what others install', async () => {
  model.search.type('half a na');
  server.current = job('running', { id: 'b2' });
  await model.refresh();
  expect([model.running, model.typed]).toEqual([true, 'half a na']);
  server.follower!.onState(job('done', { id: 'b2' }));
  await proposed();
  await model.accept();
  expect(model.typed).toBe('');
});

test('an answer that was asked for earlier does not replace a later one', async () => {
  const waiting: ((found: any) => void)[] = [];
  server.revisions = () => new Promise(resolve => waiting.push(resolve));
  const [first, second] = [model.refresh(), model.refresh()];
  waiting[1]([{ id: 2 }]);
  await second;
  waiting[0]([{ id: 1 }]);
  await first;
  expect(model.revisions).toEqual([{ id: 2 }]);
});

test('with a job that another began, what is said of it is shown', async () => {
  await model.refresh();
  const status = await server.status();
  const notices = [{ code: 'restoring', message: '', hint: '' }];
  server.status = async () => ({ ...status, notices, job: job('running', { id: 'b2' }) });
  await model.glance();
  expect([model.running, model.status!.notices]).toEqual([true, notices]);
});

test('a status that is late does not bring a finished job back', async () => {
  await proposed();
  await model.accept();
  server.current = job('running');
  server.follower!.onState(job('done'));
  await settle();
  expect(model.job!.state).toBe('done');
});

test('a job that was cancelled takes no other with it', async () => {
  await proposed();
  await model.accept();
  let answer: (job: any) => void = () => undefined;
  server.cancel = () => new Promise(resolve => (answer = resolve));
  const cancelling = model.cancel();
  server.follower!.onState(job('cancelled'));
  server.start = async () => job('running', { id: 'b2' });
  await model.undo(1);
  answer(job('cancelled'));
  await cancelling;
  expect([model.job!.id, model.busy]).toEqual(['b2', true]);
});

test('a panel that was opened while the server was away fills by itself', async () => {
  const status = server.status;
  server.status = () => Promise.reject(new ServerError({ code: 'unreachable', message: '', hint: '' }));
  await model.refresh();
  await model.glance();
  expect([model.loaded, model.error!.code]).toEqual([false, 'unreachable']);
  server.status = status;
  await model.glance();
  expect([model.loaded, model.error]).toEqual([true, null]);
});

test('what nobody waits for any more is ended', async () => {
  const signals: AbortSignal[] = [];
  (server as IServer).plan = (_, signal) => {
    signals.push(signal!);
    return new Promise((_, reject) => (signal!.onabort = () => reject(new Error('aborted'))));
  };
  const [first, second] = [proposed(), proposed()];
  expect(signals.map(signal => signal.aborted)).toEqual([true, false]);
  model.dismiss();
  await Promise.all([first, second]);
  expect(signals[1].aborted).toBe(true);
  expect([model.proposal, model.error]).toEqual([null, null]);
});
