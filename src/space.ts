/*
 * What could be deleted to free space. Knows no page.
 */

import { ICleanup, ICleanupItem, INotice, IServer, isMissing, told } from './types';

/** Milliseconds between two looks while the server measures, and how many. */
const PAUSE = 3000;
const LOOKS = 10;

/** Everything of one kind. */
export interface IKind {
  what: string;
  items: ICleanupItem[];
  bytes: number;
  later: number;
  /** Some of it can be deleted now. */
  free: boolean;
}

export class Space {
  constructor(
    private readonly server: IServer,
    private readonly emit: () => void
  ) {}

  data: ICleanup | null = null;
  error: INotice | null = null;
  /** The server has no clean-up. */
  missing = false;

  /** What there is, by kind, in the server's order. */
  get kinds(): IKind[] {
    const kinds = new Map<string, IKind>();
    for (const item of this.data?.items ?? []) {
      const none = { what: item.what, items: [], bytes: 0, later: 0, free: false };
      const kind = kinds.get(item.what) ?? none;
      kind.items.push(item);
      kind.free ||= !item.why;
      kind.bytes += item.bytes;
      kind.later += item.later;
      kinds.set(item.what, kind);
    }
    return [...kinds.values()];
  }

  /** Somebody looks at it now, or no longer. */
  show(shown: boolean): void {
    this._shown = shown;
    this._before = undefined;
    window.clearTimeout(this._timer);
    if (shown) {
      void this.load(LOOKS);
    }
  }

  /** A job has ended, after which the server measures by itself. */
  again(): void {
    if (this._shown) {
      this.show(true);
      this._before = this.data?.measured;
    }
  }

  dispose(): void {
    this.show(false);
  }

  private async load(looks: number): Promise<void> {
    try {
      this.data = await this.server.cleanup();
      this.error = null;
    } catch (error) {
      this.missing = isMissing(error);
      this.error = this.missing ? null : told(error);
    }
    window.clearTimeout(this._timer);
    const measured = this.data?.measured;
    if (this._shown && (measured === null || (measured && measured === this._before)) && looks > 1) {
      this._timer = window.setTimeout(() => void this.load(looks - 1), PAUSE);
    }
    this.emit();
  }

  private _shown = false;
  /** When it was measured before the change that has ended; the server does it again. */
  private _before: number | null | undefined;
  private _timer = 0;
}
