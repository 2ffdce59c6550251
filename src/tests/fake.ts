/*
 * A server that answers what a test wants. Pages are tested with the real one, in tests/ui.
 */

import { IFollower, IJob, IJobRequest, IPackage, IPlan, IServer, Scope, ServerError } from '../types';

export const PLAN: IPlan = {
  new: [{ name: 'demo', version: '1.0', size: 1000 }],
  removes: [],
  breaks: [],
  blocked: [],
  builds: [],
  bytes: 1000,
  frees: 0,
  needs_restart: false,
  sentences: ['Brings 1 package, 1 kB.']
};

export function job(state: IJob['state'] = 'running', more: Partial<IJob> = {}): IJob {
  const none = { plan: null, revision: null, error: null };
  return { id: 'a1', action: 'install', phase: '', message: '', progress: 0, ...none, state, ...more };
}

export function item(name: string, more: Partial<IPackage> = {}): IPackage {
  return {
    name,
    version: '1.0',
    where: 'overlay',
    requested: true,
    shadows: null,
    size: 0,
    summary: '',
    ...more
  };
}

export class FakeServer implements IServer {
  lists: { [scope: string]: IPackage[] } = {};
  planned: IPlan = PLAN;
  started: IJobRequest[] = [];
  cancelled: string[] = [];
  asked: Scope[] = [];
  follower: IFollower | null = null;
  stopped = 0;
  refuse: ServerError | null = null;
  knowsForce = true;
  current: IJob | null = null;

  async status(): Promise<any> {
    const sizes = { overlay: 5, free: 10 };
    const base = { python: '3.12', changed: false };
    return { overlay: 'default', mode: 'normal', notices: [], sizes, base, job: this.current };
  }

  async packages(scope: Scope): Promise<IPackage[]> {
    this.asked.push(scope);
    return this.lists[scope] ?? [];
  }

  async revisions(): Promise<[]> {
    return [];
  }

  async plan(): Promise<IPlan> {
    if (this.refuse) {
      throw this.refuse;
    }
    return this.planned;
  }

  async start(request: IJobRequest): Promise<IJob> {
    if (request.force && !this.knowsForce) {
      throw new ServerError({ code: 'bad-request', message: "There is no field 'force'.", hint: '' });
    }
    this.started.push(request);
    return job();
  }

  async job(): Promise<IJob> {
    return job('done');
  }

  async cancel(id: string): Promise<IJob> {
    this.cancelled.push(id);
    return job();
  }

  follow(_id: string, follower: IFollower): () => void {
    this.follower = follower;
    return () => {
      this.stopped += 1;
    };
  }
}

/** Let everything that waits for nothing come to its end. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 10; turn++) {
    await Promise.resolve();
  }
}
