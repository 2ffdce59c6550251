/*
 * Follows a job by its stream, and by asking for it where there is none: when it is lost, and while nobody sees the
 * page. A browser has six connections for all pages of a server, and each stream takes one.
 */

import { IJob, INotice, IProgress, IServer, ServerError, told } from './types';

/** Milliseconds between two looks at a job. */
const POLL = 1000;

/** The same where nobody sees the page. */
const HIDDEN = 5000;

/** The same at most, while nothing answers. */
const SLOWEST = 30_000;

export interface IListener {
  /** Whether anybody still wants to know. */
  wanted(): boolean;
  onState(job: IJob): void;
  onProgress(progress: IProgress): void;
  /** The server can't be asked for now; it is asked again. */
  onTrouble(problem: INotice): void;
  /** The server knows nothing of the job any more: it was started again. */
  onGone(): void;
}

/** Tell of a job until it ends; the result stops that. */
export function follow(server: IServer, id: string, listener: IListener): () => void {
  let timer = 0;
  let pause = POLL;
  let over = false;
  let close: (() => void) | null = null;
  const hidden = (): boolean => document.visibilityState === 'hidden';
  const wanted = (): boolean => !over && listener.wanted();
  const later = (): void => {
    window.clearTimeout(timer);
    timer = window.setTimeout(() => void poll(), hidden() ? Math.max(pause, HIDDEN) : pause);
  };
  const poll = async (): Promise<void> => {
    let found: IJob | null = null;
    let problem: unknown;
    try {
      found = await server.job(id);
    } catch (error) {
      problem = error;
    }
    if (!wanted()) {
      return;
    }
    if (found) {
      pause = POLL;
      listener.onState(found);
    } else if (problem instanceof ServerError && problem.notice.code === 'not-found') {
      listener.onGone();
    } else {
      pause = Math.min(SLOWEST, 2 * pause);
      listener.onTrouble(told(problem));
    }
    if (wanted() && !close) {
      later();
    }
  };
  const listen = (): void => {
    window.clearTimeout(timer);
    close?.();
    close = server.follow(id, {
      onState: job => {
        if (wanted()) {
          listener.onState(job);
        }
      },
      onProgress: progress => {
        if (wanted()) {
          listener.onProgress(progress);
        }
      },
      onLost: () => {
        close = null;
        void poll();
      }
    });
  };
  const look = (): void => {
    if (!hidden()) {
      pause = POLL;
      listen(); // it begins with the job as it is
    } else if (close) {
      close();
      close = null;
      later();
    }
  };
  document.addEventListener('visibilitychange', look);
  if (hidden()) {
    later();
  } else {
    listen();
  }
  return () => {
    over = true;
    document.removeEventListener('visibilitychange', look);
    window.clearTimeout(timer);
    close?.();
    close = null;
  };
}
