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
  /** The version of the overlay's that it takes the place of. */
  replaces?: string | null;
}

/** What can be done about a plan that breaks something. */
export interface IChoice {
  /** `cancel`, `force`, `change`; others are of newer servers. */
  choice: string;
  message: string;
  /** With `change`: what to ask for instead. */
  install?: string[];
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
  choices?: IChoice[];
  /** What is agreed to; sent along as it is. */
  expect?: object;
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
  failed?: ILeftOut[];
  packages?: IJobPackage[];
  /** Lab extensions came or went: the page shows it once it is loaded again. */
  reload?: boolean;
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
  /** What it replaced is still there: undoing it needs no download. */
  kept?: boolean;
}

/** Something that a search has found. */
export interface IFound {
  name: string;
  /** The one that is installed, else the newest of the index where that is known. */
  version: string | null;
  summary: string;
  where: Scope | null;
  source: 'installed' | 'popular' | 'index';
  /** Why the hub's rules refuse it. */
  blocked?: string | null;
}

export interface ISearch {
  query: string;
  results: IFound[];
  /** What became of asking the index for just this name. */
  index: 'found' | 'not-found' | 'unreachable' | 'skipped';
}

export interface IVersion {
  version: string;
  /** Whether this Python and the hub's rules take it; `null` where nobody knows. */
  fits: boolean | null;
  wheel: boolean | null;
  prerelease: boolean;
  yanked: boolean;
  size: number | null;
  uploaded: string | null;
}

export interface IProject {
  name: string;
  summary: string;
  url: string | null;
  newest: string | null;
  requires_python: string | null;
  installed: { overlay: string | null; base: string | null; user_site: string | null };
  /** Newest first. */
  versions: IVersion[];
}

export interface IUpdates {
  updates: { name: string; version: string; newest: string }[];
  checked: string | null;
  unreachable: boolean;
}

export interface ICleanupItem {
  what: string;
  name: string;
  bytes: number;
  /** Bytes that are free once nothing is kept for undoing. */
  later: number;
  /** What keeps it from being deleted now. */
  why: string;
}

export interface ICleanup {
  /** Seconds since 1970; `null` where nothing was measured. */
  measured: number | null;
  items: ICleanupItem[];
}

export interface ILeftOut {
  requirement: string;
  reason: string;
  hint: string;
}

/** What a file asks for. */
export interface IGiven {
  requirements: string[];
  left_out: ILeftOut[];
  /** Names of groups and extras that can be asked for as well. */
  groups: string[];
}

export interface IStatus {
  overlay: string;
  mode: 'normal' | 'safe' | 'degraded';
  notices: INotice[];
  sizes: { overlay: number | null; free: number | null };
  base: { python: string; changed: boolean };
  job: IJob | null;
  env?: string | null;
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
  expect?: object;
  what?: string[];
  dry_run?: boolean;
}

/** What follows a job until it ends. */
export interface IFollower {
  onState(job: IJob): void;
  onProgress(progress: IProgress): void;
  /** The stream broke and does not come back; the job may go on. */
  onLost(): void;
}

/** The server, as the model sees it. A signal ends a request that nobody waits for any more. */
export interface IServer {
  status(): Promise<IStatus>;
  packages(scope: Scope): Promise<IPackage[]>;
  revisions(): Promise<IRevision[]>;
  search(query: string, signal?: AbortSignal): Promise<ISearch>;
  project(name: string): Promise<IProject>;
  updates(): Promise<IUpdates>;
  cleanup(): Promise<ICleanup>;
  /** Read a file of requirements; the server knows the formats. */
  read(name: string, text: string, groups: string[]): Promise<IGiven>;
  plan(request: IPlanRequest, signal?: AbortSignal): Promise<IPlan>;
  start(request: IJobRequest): Promise<IJob>;
  job(id: string): Promise<IJob>;
  cancel(id: string): Promise<IJob>;
  /** Follow a job; the result stops that. */
  follow(id: string, follower: IFollower): () => void;
}

/** The code of what is said while nothing comes from the server. */
export const UNREACHABLE = 'unreachable';

/** The code of what is said where a page to log in comes instead of an answer. */
export const LOGGED_OUT = 'logged-out';

/** Whether something is said that is over as soon as the server answers. */
export function isAway(notice: INotice | null): boolean {
  return notice !== null && [UNREACHABLE, LOGGED_OUT].includes(notice.code);
}

/** What the server refused, or why it could not be asked. */
export class ServerError extends Error {
  constructor(readonly notice: INotice) {
    super(notice.message);
  }
}

/** Whether a server has nothing of this kind: the page may be newer than it. */
export function isMissing(error: unknown): boolean {
  return error instanceof ServerError && error.notice.code === 'not-found';
}

/** What is said of an error. */
export function told(error: unknown): INotice {
  return error instanceof ServerError ? error.notice : { code: 'internal', message: String(error), hint: '' };
}

/** Which packages are known to bring a module. */
export interface IModule {
  module: string;
  packages: { name: string; source: string; installed: unknown }[];
  restoring: boolean;
}

export type StartMode = 'safe' | 'normal';

/** The server, as notebooks and the page around the panel see it. */
export interface IPageServer {
  status(): Promise<IStatus>;
  module(name: string): Promise<IModule>;
  /** Ask how the server starts next time. */
  nextStart(mode: StartMode): Promise<void>;
  /** Stop the server. */
  shutdown(): Promise<void>;
}
