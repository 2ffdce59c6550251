/*
 * Follows a job by its stream, and by asking for it when the stream is lost. Knows no page.
 */

import { IJob, IProgress, IServer, ServerError } from './types';

/** Milliseconds between two looks at a job whose stream is lost. */
const POLL = 1000;

export interface IListener {
  /** Whether anybody still wants to know. */
  wanted(): boolean;
  onState(job: IJob): void;
  onProgress(progress: IProgress): void;
  /** The server knows nothing of the job any more: it was started again. */
  onGone(): void;
}

/** Tell of a job until it ends; the result stops that. */
export function follow(server: IServer, id: string, listener: IListener): () => void {
  let timer = 0;
  const poll = async (): Promise<void> => {
    try {
      const told = await server.job(id);
      if (listener.wanted()) {
        listener.onState(told);
      }
    } catch (error) {
      if (listener.wanted() && error instanceof ServerError && error.notice.code === 'not-found') {
        listener.onGone();
        return;
      }
    }
    if (listener.wanted()) {
      timer = window.setTimeout(() => void poll(), POLL);
    }
  };
  const stop = server.follow(id, {
    onState: told => {
      if (listener.wanted()) {
        listener.onState(told);
      }
    },
    onProgress: progress => {
      if (listener.wanted()) {
        listener.onProgress(progress);
      }
    },
    onLost: () => {
      window.clearTimeout(timer);
      void poll();
    }
  });
  return () => {
    stop();
    window.clearTimeout(timer);
  };
}
