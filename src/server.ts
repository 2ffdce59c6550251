/*
 * The REST interface of the server extension.
 */

import { PageConfig, URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

import {
  ICleanup,
  IFollower,
  IGiven,
  IJob,
  IJobRequest,
  IModule,
  INotice,
  IPackage,
  IPageServer,
  IPlan,
  IPlanRequest,
  IProject,
  IRevision,
  ISearch,
  IServer,
  IStatus,
  IUpdates,
  LOGGED_OUT,
  Scope,
  ServerError,
  StartMode,
  UNREACHABLE
} from './types';

/** The value of the XSRF cookie, which an EventSource has to send in its address: it has no headers. */
function xsrf(): string {
  const found = /(?:^|;\s*)_xsrf=([^;]*)/.exec(document.cookie);
  return found ? decodeURIComponent(found[1]) : '';
}

/** What a hub or a proxy answers with where the server is not there. */
const AWAY = [424, 502, 503, 504];

/** What is said of an answer that is not the server's: a hub's or a proxy's. */
function foreign(response: Response, message: unknown): INotice {
  let code = response.ok || AWAY.includes(response.status) ? UNREACHABLE : 'internal';
  if (response.ok && response.redirected) {
    code = LOGGED_OUT; // it led to a page, and for a program there is none but that to log in
  }
  return { code, message: String(message ?? `${response.status} ${response.statusText}`), hint: '' };
}

interface ICallOptions {
  /** It answers with nothing where it has done what was asked for. */
  silent?: boolean;
  /** Ends the request. */
  signal?: AbortSignal;
}

/** The server that the page came from. */
export class Server implements IServer, IPageServer {
  constructor(private readonly settings = ServerConnection.makeSettings()) {}

  status(): Promise<IStatus> {
    return this.quietly<IStatus>('status');
  }

  async packages(scope: Scope): Promise<IPackage[]> {
    return (await this.quietly<{ packages: IPackage[] }>('packages', { scope })).packages;
  }

  async revisions(): Promise<IRevision[]> {
    return (await this.quietly<{ revisions: IRevision[] }>('revisions')).revisions;
  }

  search(query: string, signal?: AbortSignal): Promise<ISearch> {
    return this.quietly<ISearch>('search', { q: query }, { signal });
  }

  project(name: string): Promise<IProject> {
    return this.quietly<IProject>(`projects/${encodeURIComponent(name)}`);
  }

  updates(): Promise<IUpdates> {
    return this.quietly<IUpdates>('updates');
  }

  cleanup(): Promise<ICleanup> {
    return this.quietly<ICleanup>('cleanup');
  }

  read(name: string, text: string, groups: string[]): Promise<IGiven> {
    return this.call<IGiven>('POST', this.address('given'), { name, text, groups });
  }

  plan(request: IPlanRequest, signal?: AbortSignal): Promise<IPlan> {
    return this.call<IPlan>('POST', this.address('plan'), request, { signal });
  }

  start(request: IJobRequest): Promise<IJob> {
    return this.call<IJob>('POST', this.address('jobs'), request);
  }

  job(id: string): Promise<IJob> {
    return this.quietly<IJob>(`jobs/${id}`);
  }

  cancel(id: string): Promise<IJob> {
    return this.call<IJob>('DELETE', this.address(`jobs/${id}`));
  }

  follow(id: string, follower: IFollower): () => void {
    const query: { [name: string]: string } = { no_track_activity: '1' };
    if (xsrf()) {
      query._xsrf = xsrf();
    }
    if (this.settings.appendToken && this.settings.token) {
      query.token = this.settings.token;
    }
    const source = new EventSource(this.address(`jobs/${id}/events`, query), { withCredentials: true });
    const on = <T>(name: string, act: (data: T) => void): void =>
      source.addEventListener(name, event => act(JSON.parse((event as MessageEvent<string>).data) as T));
    on('state', follower.onState);
    on('progress', follower.onProgress);
    source.onerror = () => {
      // Otherwise it connects again by itself, and is sent what it missed.
      if (source.readyState === EventSource.CLOSED) {
        follower.onLost();
      }
    };
    return () => source.close();
  }

  module(name: string): Promise<IModule> {
    return this.quietly<IModule>(`modules/${encodeURIComponent(name)}`);
  }

  async nextStart(mode: StartMode): Promise<void> {
    await this.call('POST', this.address('next-start'), { mode });
  }

  async shutdown(): Promise<void> {
    const base = this.settings.baseUrl || PageConfig.getBaseUrl();
    await this.call('POST', URLExt.join(base, 'api/shutdown'), {}, { silent: true });
  }

  private address(path: string, query: { [name: string]: string } = {}): string {
    const base = this.settings.baseUrl || PageConfig.getBaseUrl();
    return URLExt.join(base, 'overlay/v1', path) + URLExt.objectToQueryString(query);
  }

  /** Ask for what the page wants to know on its own: that must not keep an idle server alive. */
  private quietly<T>(
    path: string,
    query: { [name: string]: string } = {},
    options: ICallOptions = {}
  ): Promise<T> {
    return this.call<T>('GET', this.address(path, { ...query, no_track_activity: '1' }), undefined, options);
  }

  private async call<T>(
    method: string,
    address: string,
    body?: object,
    { silent, signal }: ICallOptions = {}
  ): Promise<T> {
    let response: Response;
    try {
      const init: RequestInit = { method, body: body && JSON.stringify(body) };
      if (signal) {
        init.signal = signal;
      }
      response = await ServerConnection.makeRequest(address, init, this.settings);
    } catch (error) {
      throw new ServerError({ code: UNREACHABLE, message: String(error), hint: '' });
    }
    let data: any = null;
    try {
      data = await response.json();
    } catch {
      // no JSON: that is nobody's answer but that of `silent` ones
    }
    if (response.ok && (data !== null || (silent && !response.redirected))) {
      return data as T;
    }
    if (response.ok || !data?.code) {
      throw new ServerError(foreign(response, data?.message));
    }
    throw new ServerError({
      code: String(data.code),
      message: String(data.message ?? `${response.status} ${response.statusText}`),
      hint: String(data.hint ?? '')
    });
  }
}
