/*
 * Newer versions of what the user has asked for. The index is asked on demand only. Knows no page.
 */

import { INotice, IServer, isMissing, told } from './types';

export class Updates {
  constructor(
    private readonly server: IServer,
    private readonly emit: () => void
  ) {}

  /** Name to the newest version; `null` while nobody has asked. */
  newest: Map<string, string> | null = null;
  /** The index could not be reached, or only in part. */
  unreachable = false;
  error: INotice | null = null;
  busy = false;
  /** The server does not look for any. */
  missing = false;

  async check(): Promise<void> {
    this.busy = true;
    this.error = null;
    this.emit();
    try {
      const answer = await this.server.updates();
      this.newest = new Map(answer.updates.map(item => [item.name, item.newest]));
      this.unreachable = answer.unreachable;
    } catch (error) {
      this.missing = isMissing(error);
      this.error = this.missing ? null : told(error);
    }
    this.busy = false;
    this.emit();
  }

  /** What of it still holds, now that other versions are there. */
  keep(versions: Map<string, string>): void {
    for (const [name, newest] of this.newest ?? []) {
      if (versions.get(name) === newest || !versions.has(name)) {
        this.newest!.delete(name);
      }
    }
  }
}
