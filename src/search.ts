/*
 * What is searched for while somebody types, and the versions of what was found. Knows no page.
 */

import { query } from './text';
import { INotice, IProject, ISearch, IServer, isMissing, told } from './types';

/** Milliseconds that somebody has to pause for before the server is asked. */
const PAUSE = 250;

/** Fewer letters than that mean nothing. */
const SHORTEST = 2;

/** The box: what stands in it, and what was found for it. */
export class Search {
  constructor(
    private readonly server: IServer,
    private readonly emit: () => void
  ) {}

  text = '';
  found: ISearch | null = null;
  error: INotice | null = null;
  /** Somebody waits for an answer. */
  busy = false;
  /** Name of the one that is shown in detail. */
  open: string | null = null;

  /** The versions of what is shown in detail; `null` until they are known. */
  get project(): IProject | INotice | null {
    return (this.open !== null && this._projects.get(this.open)) || null;
  }

  /** Take what stands in the box now. */
  type(text: string): void {
    this.text = text;
    const wanted = this._available ? query(text) : '';
    if (wanted !== this._wanted) {
      this._wanted = wanted;
      window.clearTimeout(this._timer);
      this._asking.abort(); // a browser has few connections, and an index may be slow
      this.busy = wanted.length >= SHORTEST;
      if (this.busy) {
        this._timer = window.setTimeout(() => void this.ask(wanted), PAUSE);
      } else {
        this.found = this.error = this.open = null;
      }
    }
    this.emit();
  }

  /** Show one in detail, or no longer. */
  async toggle(name: string): Promise<void> {
    this.open = this.open === name ? null : name;
    this.emit();
    const known = this.project;
    // what failed is asked again when it is shown again
    if (this.open !== null && (known === null || 'code' in known)) {
      await this.look(name);
    }
  }

  /** Something was changed: what is installed is no longer what was said. */
  forget(): void {
    this._projects.clear();
    this._wanted = '';
    this.type(this.text);
    if (this.open !== null) {
      void this.look(this.open);
    }
  }

  dispose(): void {
    window.clearTimeout(this._timer);
    this._asking.abort();
  }

  /** Ask for the versions of one. */
  private async look(name: string): Promise<void> {
    this._projects.delete(name);
    this.emit();
    let answer: IProject | INotice;
    try {
      answer = await this.server.project(name);
    } catch (error) {
      answer = told(error);
    }
    this._projects.set(name, answer);
    this.emit();
  }

  private async ask(wanted: string): Promise<void> {
    let found: ISearch | null = null;
    let error: INotice | null = null;
    const { signal } = (this._asking = new AbortController());
    try {
      found = await this.server.search(wanted, signal);
    } catch (problem) {
      if (isMissing(problem)) {
        this._available = false;
      } else {
        error = told(problem);
      }
    }
    if (signal.aborted) {
      return; // somebody went on typing
    }
    this.found = found;
    this.error = error;
    this.busy = false;
    if (!found?.results.some(item => item.name === this.open)) {
      this.open = null;
    }
    this.emit();
  }

  private _available = true;
  private _wanted = '';
  private _timer = 0;
  private _asking = new AbortController();
  private _projects = new Map<string, IProject | INotice>();
}
