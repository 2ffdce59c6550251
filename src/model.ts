/*
 * What the panel shows, and what its buttons do. Knows no page and no component.
 */

import { ISignal, Signal } from '@lumino/signaling';

import { follow } from './follow';
import { Given } from './given';
import { Search } from './search';
import { Space } from './space';
import {
  IJob,
  IJobRequest,
  INotice,
  IPackage,
  IPlan,
  IPlanRequest,
  IRevision,
  IServer,
  IStatus,
  Scope,
  ServerError,
  isAway,
  told as notice
} from './types';
import { Updates } from './updates';

/** A change that waits for the user's consent. */
export interface IProposal {
  request: IPlanRequest;
  /** `null` while the server works it out. */
  plan: IPlan | null;
  /** Somebody agreed to another plan, and this is what it has become. */
  changed?: boolean;
}

const FINISHED = ['done', 'failed', 'cancelled'];

/** What a change may end with that was not what somebody had agreed to: they are asked again. */
const ASK_AGAIN = ['plan-changed', 'would-break'];

/** Milliseconds between two looks for what another page or a terminal may have changed. */
const GLANCE = 5000;

/** Whether something stops working that nobody has agreed to yet. */
export function isAgainst(proposal: IProposal): boolean {
  const plan = proposal.plan;
  if (!plan?.breaks.length || proposal.request.uninstall?.length) {
    return false; // a removal is not refused for what it breaks
  }
  return !plan.choices || plan.choices.some(item => item.choice === 'force');
}

/** The packages of one overlay. */
export class PackagesModel {
  constructor(private readonly server: IServer) {}

  readonly search = new Search(this.server, () => this._changed.emit());
  readonly given = new Given(this.server, () => this._changed.emit());
  readonly space = new Space(this.server, () => this._changed.emit());
  readonly updates = new Updates(this.server, () => this._changed.emit());

  status: IStatus | null = null;
  revisions: IRevision[] = [];
  proposal: IProposal | null = null;
  /** The job that runs, or the one that ended last. */
  job: IJob | null = null;
  error: INotice | null = null;
  scope: Scope = 'overlay';
  filter = '';
  loaded = false;

  /** What stands in the box for names. */
  get typed(): string {
    return this.search.text;
  }

  /** Something is different now. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** The packages of the scope that is shown; `null` until they are known. */
  get packages(): IPackage[] | null {
    return this._packages.get(this.scope) ?? null;
  }

  /** How many packages the overlay has; `null` until that is known. */
  get count(): number | null {
    return this._packages.get('overlay')?.length ?? null;
  }

  /** Whether a change runs or waits. */
  get running(): boolean {
    return this.job !== null && !FINISHED.includes(this.job.state);
  }

  /** Whether another one can't be asked for now: one runs, or the server has not answered yet that it does. */
  get busy(): boolean {
    return this.running || this._starting;
  }

  /** Ask the server for everything that is shown. */
  async refresh(): Promise<void> {
    const turn = ++this._turns;
    await this.attempt(async () => {
      const scopes: Scope[] = this.scope === 'overlay' ? ['overlay'] : ['overlay', this.scope];
      const found = await Promise.all([
        this.server.status(),
        this.server.revisions(),
        ...scopes.map(scope => this.list(scope))
      ]).catch(error => {
        if (turn > this._read) {
          throw error;
        }
        return null;
      });
      if (!found || turn < this._read) {
        return; // what was asked for later is there already
      }
      this._read = turn;
      const [status, revisions, ...lists] = found;
      this.status = status;
      this.revisions = revisions;
      // what a change did to the other lists is asked for when they are shown
      this._packages = new Map(scopes.map((scope, index) => [scope, lists[index]]));
      this.updates.keep(new Map((lists[0] ?? []).map(item => [item.name, item.version])));
      this.loaded = true;
      this.back();
      this.discover(status);
      if (this.packages === null) {
        await this.show(this.scope); // somebody has chosen another list meanwhile
      }
    });
  }

  /** Take what somebody else has asked for, where nothing is known yet. */
  greet(status: IStatus): void {
    if (!this.status) {
      this.status = status;
      this._changed.emit();
    }
  }

  /** Somebody sees all this now, or no longer: look now and then what others have done meanwhile. */
  watch(seen: boolean): void {
    window.clearInterval(this._glances);
    document.removeEventListener('visibilitychange', this.glance);
    if (seen) {
      this._glances = window.setInterval(this.glance, GLANCE);
      document.addEventListener('visibilitychange', this.glance);
    }
  }

  /** Look whether something else has changed the overlay, or does it now. Never says that it could not. */
  readonly glance = async (): Promise<void> => {
    // also where the panel was opened while the server was away
    const known = this.loaded || isAway(this.error);
    if (document.visibilityState === 'hidden' || this.busy || !known || this._glancing) {
      return;
    }
    this._glancing = true;
    const status = await this.server.status().catch(() => null);
    this._glancing = false;
    if (!status || this.busy) {
      return;
    }
    if (status.job) {
      this.discover(status);
    } else if (trace(status) !== trace(this.status) || isAway(this.error)) {
      await this.refresh();
    } else if (JSON.stringify(status.notices) !== JSON.stringify(this.status?.notices)) {
      this.status = status;
      this._changed.emit();
    }
  };

  /** Show the packages of another place. */
  async show(scope: Scope): Promise<void> {
    this.scope = scope;
    this._changed.emit();
    if (this.packages === null) {
      await this.attempt(async () => {
        this._packages.set(scope, await this.list(scope));
      });
    }
  }

  /** Show only what is meant by some words. */
  setFilter(filter: string): void {
    this.filter = filter;
    this._changed.emit();
  }

  /** Have a change worked out, to be shown before it is made. */
  async propose(request: IPlanRequest): Promise<void> {
    const proposal: IProposal = { request, plan: null };
    // the server ends what nobody waits for
    this._planning.abort();
    const planning = (this._planning = new AbortController());
    this.proposal = proposal;
    this.error = null;
    this._changed.emit();
    await this.attempt(async () => {
      try {
        const plan = await this.server.plan(request, planning.signal);
        if (this.proposal === proposal) {
          this.proposal = { request, plan };
        }
      } catch (error) {
        if (this.proposal !== proposal) {
          return; // nobody waits for it any more
        }
        this.proposal = null;
        throw error;
      }
    });
  }

  /** Drop the change that was proposed. */
  dismiss(): void {
    this._planning.abort();
    this.proposal = null;
    this.error = null;
    this._changed.emit();
  }

  /** Drop what is said about the job that ended. */
  dismissJob(): void {
    if (!this.running) {
      this.job = null;
      this._changed.emit();
    }
  }

  /** Make the change that was proposed. */
  async accept(): Promise<void> {
    const proposal = this.proposal;
    if (!proposal?.plan) {
      return;
    }
    const action = (['install', 'uninstall', 'upgrade'] as const).find(name => proposal.request[name]?.length)!;
    const request: IJobRequest = { action, [action]: proposal.request[action] };
    if (proposal.plan.expect) {
      request.expect = proposal.plan.expect;
    }
    if (await this.start(request, isAgainst(proposal))) {
      this._asked = { id: this.job!.id, request: proposal.request };
      this.proposal = null;
      this.given.close();
      if (action === 'install') {
        this.search.type('');
      }
    }
  }

  /** Have something done that needs no plan. */
  async run(request: IJobRequest): Promise<boolean> {
    return this.start(request);
  }

  /** Undo a change; without a number the latest. */
  async undo(revision?: number): Promise<void> {
    await this.start(revision === undefined ? { action: 'undo' } : { action: 'undo', revision });
  }

  /** Go back to what there was after a change; without a number, install what is missing. */
  async restore(revision?: number): Promise<void> {
    await this.start(revision === undefined ? { action: 'restore' } : { action: 'restore', revision });
  }

  /** Delete everything of a kind; without one, only measure. */
  async clean(what?: string): Promise<void> {
    await this.start(what ? { action: 'clean', what: [what] } : { action: 'clean', dry_run: true });
  }

  /** Ask the job that runs to stop. */
  async cancel(): Promise<void> {
    const job = this.job;
    if (job) {
      await this.attempt(async () => {
        const told = await this.server.cancel(job.id);
        // the stream may have told it already, and another may run now
        if (FINISHED.includes(told.state) && this.job?.id === job.id && this.running) {
          this.take(told);
        }
      });
    }
  }

  /** Stop following a job. */
  dispose(): void {
    this._stop();
    this._planning.abort();
    this.watch(false);
    this.search.dispose();
    this.space.dispose();
    Signal.clearData(this);
  }

  /** The packages of a place. In safe mode there is no overlay to ask for, which the status says better. */
  private async list(scope: Scope): Promise<IPackage[]> {
    try {
      return await this.server.packages(scope);
    } catch (error) {
      if (scope === 'overlay' && error instanceof ServerError && error.notice.code === 'no-overlay') {
        return [];
      }
      throw error;
    }
  }

  private async start(request: IJobRequest, force = false): Promise<boolean> {
    let begun = false;
    if (this._starting) {
      return begun; // a button that was pressed twice
    }
    this._starting = true;
    this._changed.emit();
    await this.attempt(
      async () => {
        let job: IJob;
        try {
          job = await this.server.start(force ? { ...request, force } : request);
        } catch (error) {
          // A server that does not know the field does not refuse what it stands for either.
          const unknown = error instanceof ServerError && error.notice.code === 'bad-request';
          if (!force || !unknown) {
            throw error;
          }
          job = await this.server.start(request);
        }
        begun = true;
        this.error = null;
        this.follow(job);
      },
      () => (this._starting = false)
    );
    return begun;
  }

  /** Follow what another page or a terminal has begun; never one that is known to be over. */
  private discover(status: IStatus): void {
    const job = status.job;
    if (job && !this.running && this.job?.id !== job.id) {
      this.status = status; // its notices are of the time since that job began
      this.follow(job);
    }
  }

  /** The server answers: nothing is said of its absence any more. */
  private back(): void {
    if (isAway(this.error) || this.error === this._trouble) {
      this.error = this._trouble = null;
    }
  }

  private follow(job: IJob): void {
    this._stop();
    this.job = job;
    if (FINISHED.includes(job.state)) {
      this.take(job);
      return;
    }
    this._stop = follow(this.server, job.id, {
      wanted: () => this.job?.id === job.id && this.running,
      onState: told => this.take(told),
      onProgress: progress => {
        this.back();
        const packages = new Map((this.job!.packages ?? []).map(item => [item.name, item]));
        (progress.packages ?? []).forEach(item => packages.set(item.name, item));
        const { phase, message } = progress;
        const told = { phase, message, progress: progress.progress, packages: [...packages.values()] };
        this.job = { ...this.job!, ...told };
        this._changed.emit();
      },
      onTrouble: problem => {
        this.error = this._trouble = problem;
        this._changed.emit();
      },
      onGone: () => {
        this.job = null;
        void this.refresh();
      }
    });
    this._changed.emit();
  }

  private take(job: IJob): void {
    this.back();
    this.job = { ...job, packages: job.packages ?? this.job?.packages };
    if (FINISHED.includes(job.state)) {
      this._stop();
      this._stop = () => undefined;
      this.askAgain(this.job);
      void this.refresh();
      this.search.forget();
      this.space.again();
    }
    this._changed.emit();
  }

  private askAgain(job: IJob): void {
    const asked = this._asked;
    this._asked = null;
    if (asked?.id !== job.id || !ASK_AGAIN.includes(job.error?.code ?? '')) {
      return;
    }
    this.job = null;
    if (job.plan) {
      this.proposal = { request: asked.request, plan: job.plan, changed: true };
    } else {
      void this.propose(asked.request);
    }
  }

  private async attempt(act: () => Promise<void>, after: () => void = () => undefined): Promise<void> {
    try {
      await act();
    } catch (error) {
      this.error = notice(error);
    }
    after();
    this._changed.emit();
  }

  private _packages = new Map<Scope, IPackage[]>();
  private _asked: { id: string; request: IPlanRequest } | null = null;
  private _planning = new AbortController();
  private _trouble: INotice | null = null;
  private _glances = 0;
  private _glancing = false;
  private _starting = false;
  /** How often everything was asked for, and which of it is shown. */
  private _turns = 0;
  private _read = 0;
  private _stop: () => void = () => undefined;
  private _changed = new Signal<this, void>(this);
}

/** What of a status is another one after a change. */
function trace(status: IStatus | null): string {
  return JSON.stringify([status?.undoable, status?.sizes.overlay, status?.pending, status?.mode]);
}
