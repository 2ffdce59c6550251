/*
 * Files that somebody drops on the panel: read by the page, understood by the server. Knows no page.
 */

import { requirements } from './text';
import { IGiven, ILeftOut, INotice, IServer, isMissing, told } from './types';

/** Bytes of a file that are read at most. */
export const MAX_FILE = 900_000;

const OPTION = /^\s*(-|\.{0,2}\/)/;

/** A file, and what of it is to be installed. */
export class Given {
  constructor(
    private readonly server: IServer,
    private readonly emit: () => void
  ) {}

  name = '';
  /** What it asks for; `null` where no file is shown. */
  found: IGiven | null = null;
  /** The groups of it that are asked for as well. */
  groups: string[] = [];
  error: INotice | null = null;
  busy = false;

  /**
   * Read a file.
   *
   * @returns what it asks for, where there is nothing to decide before that is planned
   */
  async take(file: File, texts: { large: string; unknown: string; unread: string }): Promise<string[] | null> {
    this.close();
    const turn = ++this._turns;
    this.name = file.name;
    if (file.size > MAX_FILE) {
      this.error = { code: 'bad-request', message: texts.large, hint: '' };
      this.emit();
      return null;
    }
    const text = await read(file).catch(() => null);
    if (turn !== this._turns) {
      return null; // another file was dropped meanwhile
    }
    if (text === null) {
      this.error = { code: 'bad-request', message: texts.unread, hint: '' };
      this.emit();
      return null;
    }
    this._text = text;
    await this.ask(texts.unknown);
    const found = this.found as IGiven | null;
    if (
      turn !== this._turns ||
      !found ||
      found.groups.length ||
      found.left_out.length ||
      !found.requirements.length
    ) {
      return null;
    }
    this.close();
    return found.requirements;
  }

  /** Ask for a group as well, or no longer. */
  async choose(group: string, wanted: boolean): Promise<void> {
    this.groups = this.groups.filter(name => name !== group).concat(wanted ? [group] : []);
    await this.ask('');
  }

  /** Show no file any more. */
  close(): void {
    this.found = this.error = null;
    this.groups = [];
    this.emit();
  }

  private async ask(unknown: string): Promise<void> {
    const [name, text, groups] = [this.name, this._text, this.groups];
    this.busy = true;
    this.emit();
    let found: IGiven | null = null;
    let error: INotice | null = null;
    try {
      found = await this.server.read(name, text, groups);
    } catch (problem) {
      if (!isMissing(problem)) {
        error = told(problem);
      } else if (/\.(txt|in)$/.test(name)) {
        found = plain(text);
      } else {
        error = { code: 'not-available', message: unknown, hint: '' };
      }
    }
    if (groups === this.groups && text === this._text) {
      this.busy = false;
      this.found = error ? this.found : found;
      this.error = error;
      this.emit();
    }
  }

  private _text = '';
  private _turns = 0;
}

/** A requirements.txt, as far as a page can tell: for servers that don't read files. */
function plain(text: string): IGiven {
  const lines = text.split(/\r?\n/);
  const left_out: ILeftOut[] = lines
    .filter(line => OPTION.test(line))
    .map(line => ({ requirement: line.trim(), reason: '', hint: '' }));
  return {
    requirements: requirements(lines.filter(line => !OPTION.test(line)).join('\n')),
    left_out,
    groups: []
  };
}

function read(file: File): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result));
    reader.onerror = () => reject(reader.error);
    reader.readAsText(file);
  });
}
