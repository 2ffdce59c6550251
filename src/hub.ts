/*
 * Starts the server again through the hub.
 *
 * A page can stop its server, and can send the browser to the hub, which starts it. In between the hub has to
 * notice that the server is gone: until then it would send the browser back to where nobody is. It looks every half
 * a minute (`Spawner.poll_interval`), and whenever somebody opens its home page.
 */

import { PageConfig, URLExt } from '@jupyterlab/coreutils';

export interface IHub {
  /** Scheme and host, where the hub has others than this page; else empty. */
  host: string;
  /** Path of the hub: `/hub/`. */
  prefix: string;
  user: string;
  /** Name of a named server; else empty. */
  server: string;
}

/** The hub of this page; `null` where the server was started without one. */
export function hubOfPage(): IHub | null {
  const prefix = PageConfig.getOption('hubPrefix');
  const user = PageConfig.getOption('hubUser');
  const host = PageConfig.getOption('hubHost');
  return prefix && user ? { host, prefix, user, server: PageConfig.getOption('hubServerName') } : null;
}

/**
 * The address at which the hub starts the server.
 *
 * @param next Where the browser goes then: path and query of a page of the server.
 */
export function spawnAddress(hub: IHub, next: string): string {
  const names = [hub.user, hub.server].filter(name => name).map(encodeURIComponent);
  return hub.host + URLExt.join(hub.prefix, 'spawn', ...names) + URLExt.objectToQueryString({ next });
}

/** Milliseconds between two looks, and after which the hub's home page has to help. */
const PAUSE = 500;
const LIMIT = 90_000;

/**
 * Wait until the hub knows that the server has stopped.
 *
 * @param api An address of the server that it always answers.
 * @returns Whether it does; else the user has to start the server on the hub's home page.
 */
export async function stopped(hub: IHub, api: string): Promise<boolean> {
  const end = Date.now() + LIMIT;
  for (let look = 0; Date.now() < end; look++) {
    if (look % 4 === 0 && !hub.host && !hub.server) {
      // It has the hub look for a default server. The hub lets pages of its own origin ask for it like for a picture.
      await fetch(URLExt.join(hub.prefix, 'home'), { mode: 'no-cors', credentials: 'include' }).catch(
        () => null
      );
    }
    if (await routed(api)) {
      return true;
    }
    await new Promise(resolve => window.setTimeout(resolve, PAUSE));
  }
  return false;
}

/** Whether the proxy sends requests for the server to the hub, as it does once the hub knows. */
async function routed(api: string): Promise<boolean> {
  const init: RequestInit = { redirect: 'manual', cache: 'no-store', headers: { Accept: 'application/json' } };
  const answer = await fetch(api, init).catch(() => null);
  if (!answer || answer.ok) {
    return false; // still there, or nobody answers at all
  }
  const json = (answer.headers.get('Content-Type') ?? '').includes('json');
  // a proxy says 502 to 504 where nobody is; a hub may say 503 itself (use_legacy_stopped_server_status_code)
  return ![502, 503, 504].includes(answer.status) || json;
}
