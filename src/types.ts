/*
 * The shapes of the REST interface, as far as the panel reads them.
 *
 * What not every version of the server sends is optional: the page may be older or newer than the server.
 */

export type Scope = 'overlay' | 'base' | 'user-site';

export interface INotice {
  code: string;
  message: string;
  hint: string;
}

export interface IPackage {
  name: string;
  version: string;
  where: Scope;
  requested: boolean;
  shadows: string | null;
  size: number;
  summary: string;
  /** The administrator asked for it, not the user. */
  administrator?: boolean;
}

export interface IPlanItem {
  name: string;
  version: string | null;
  size?: number | null;
}

export interface IPlan {
  new: IPlanItem[];
  removes: IPlanItem[];
  breaks: IPlanItem[];
  blocked: IPlanItem[];
  builds: IPlanItem[];
  bytes: number | null;
  frees: number;
  needs_restart: boolean;
  sentences?: string[];
}

export interface IJobPackage {
  name: string;
  version?: string;
  state: string;
  bytes?: number | null;
  total?: number | null;
}

export type JobState = 'queued' | 'running' | 'done' | 'failed' | 'cancelled';

export interface IJob {
  id: string;
  action: string;
  state: JobState;
  phase: string;
  message: string;
  progress: number;
  plan: IPlan | null;
  revision: number | null;
  error: INotice | null;
  failed?: { requirement: string; reason: string; hint: string }[];
  packages?: IJobPackage[];
}

/** What a `progress` event of a job tells. */
export interface IProgress {
  phase: string;
  message: string;
  progress: number;
  package?: string;
  packages?: IJobPackage[];
}

export interface IRevision {
  id: number;
  when: string;
  who?: string;
  action: string;
  argv: string[];
  undoes?: number;
  plan?: IPlan;
}

export interface IStatus {
  overlay: string;
  mode: 'normal' | 'safe' | 'degraded';
  notices: INotice[];
  sizes: { overlay: number | null; free: number | null };
  base: { python: string; changed: boolean };
  job: IJob | null;
  restore?: { state: string; why: string | null } | null;
  undoable?: { revision: number; offline: boolean } | null;
  pending?: { [kind: string]: string[] } | null;
}

export interface IPlanRequest {
  install?: string[];
  uninstall?: string[];
  upgrade?: string[];
}

export interface IJobRequest extends IPlanRequest {
  action: string;
  revision?: number;
  force?: boolean;
}

/** What follows a job until it ends. */
export interface IFollower {
  onState(job: IJob): void;
  onProgress(progress: IProgress): void;
  /** The stream broke and does not come back; the job may go on. */
  onLost(): void;
}

/** The server, as the model sees it. */
export interface IServer {
  status(): Promise<IStatus>;
  packages(scope: Scope): Promise<IPackage[]>;
  revisions(): Promise<IRevision[]>;
  plan(request: IPlanRequest): Promise<IPlan>;
  start(request: IJobRequest): Promise<IJob>;
  job(id: string): Promise<IJob>;
  cancel(id: string): Promise<IJob>;
  /** Follow a job; the result stops that. */
  follow(id: string, follower: IFollower): () => void;
}

/** What the server refused, or why it could not be asked. */
export class ServerError extends Error {
  constructor(readonly notice: INotice) {
    super(notice.message);
  }
}
