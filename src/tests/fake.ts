/*
 * A server that answers what a test wants. Pages are tested with the real one, in tests/ui.
 */

import {
  ICleanup,
  IFollower,
  IGiven,
  IJob,
  IJobRequest,
  IPackage,
  IPlan,
  IPlanRequest,
  IProject,
  IRevision,
  ISearch,
  IServer,
  IStatus,
  IUpdates,
  Scope,
  ServerError
} from '../types';

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
  history: IRevision[] = [];
  undoable: IStatus['undoable'] = null;
  plans: IPlanRequest[] = [];
  searched: string[] = [];
  texts: string[] = [];
  found: ISearch | null = null;
  versions: IProject | null = null;
  newer: IUpdates | null = null;
  space: ICleanup | null = null;
  given: IGiven | null = null;

  async status(): Promise<any> {
    const sizes = { overlay: 5, free: 1e12 };
    const base = { python: '3.12', changed: false };
    const undoable = this.undoable;
    return { overlay: 'default', mode: 'normal', notices: [], sizes, base, undoable, job: this.current };
  }

  async packages(scope: Scope): Promise<IPackage[]> {
    this.asked.push(scope);
    return this.lists[scope] ?? [];
  }

  async revisions(): Promise<IRevision[]> {
    return this.history;
  }

  async search(query: string): Promise<ISearch> {
    this.searched.push(query);
    return this.answer(this.found);
  }

  async project(): Promise<IProject> {
    return this.answer(this.versions);
  }

  async updates(): Promise<IUpdates> {
    return this.answer(this.newer);
  }

  async cleanup(): Promise<ICleanup> {
    return this.answer(this.space);
  }

  async read(_name: string, text: string, groups: string[]): Promise<IGiven> {
    this.texts.push(text);
    const given = this.answer(this.given);
    return { ...given, requirements: [...given.requirements, ...groups] };
  }

  /** What a test has put there; a server that is older than the page has nothing. */
  private answer<T>(there: T | null): T {
    if (there === null) {
      throw new ServerError({ code: 'not-found', message: 'There is no such thing.', hint: '' });
    }
    return there;
  }

  async plan(request: IPlanRequest): Promise<IPlan> {
    this.plans.push(request);
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
