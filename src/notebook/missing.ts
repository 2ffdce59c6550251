/*
 * What may be said about a module that a cell did not find. Pure.
 */

import { IModule } from '../types';

/** Longer names are nobody's. */
const LONGEST = 200;

const MESSAGE = /^No module named '([\p{L}_][\p{L}\p{N}_]*(?:\.[\p{L}_][\p{L}\p{N}_]*)*)'$/u;

/** The module that an error of a cell is about, `null` where it is another error. */
export function missingModule(name: string, value: string): string | null {
  const found = name === 'ModuleNotFoundError' && value.length <= LONGEST ? MESSAGE.exec(value) : null;
  return found && found[1];
}

/**
 * The kernel that runs in the overlay, among the names of all kernels; `null` where none does.
 *
 * Beside the overlay's `python3` there is always the image's own, and beside the image's the overlay's: the same
 * names that `payload/kernelspec.py` gives them.
 */
export function overlayKernel(names: readonly string[]): string | null {
  if (names.includes('python3-overlay')) {
    return 'python3-overlay';
  }
  return names.includes('python3-base') && names.includes('python3') ? 'python3' : null;
}

export type Offer =
  | { kind: 'restoring' }
  | { kind: 'installed'; name: string; part?: boolean }
  | { kind: 'install'; names: string[] }
  | { kind: 'search'; text: string };

/** Packages that are offered for one module. */
const OFFERED = 3;

/**
 * What to offer for a missing module.
 *
 * To install something is offered only where the server knows which package brings the module. A name that was
 * guessed from the module's may be anybody's.
 */
export function offer(module: string, known: IModule): Offer {
  if (known.restoring) {
    return { kind: 'restoring' };
  }
  const installed = known.packages.find(item => item.installed);
  if (installed) {
    const found = { kind: 'installed' as const, name: installed.name };
    // a part of what is there: restarting the kernel helps less often than another version
    return module.includes('.') ? { ...found, part: true } : found;
  }
  const names = known.packages.map(item => item.name);
  return names.length
    ? { kind: 'install', names: names.slice(0, OFFERED) }
    : { kind: 'search', text: module.split('.')[0] };
}
