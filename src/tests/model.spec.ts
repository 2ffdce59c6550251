import { PackagesModel } from '../model';
import { ServerError } from '../types';
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
