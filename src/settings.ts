/*
 * What the user has chosen in the settings. Until they are read, or where there are none, the defaults hold.
 */

import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { ISignal, Signal } from '@lumino/signaling';

/** The same names and defaults as in `schema/panel.json`. */
const DEFAULTS = { statusBar: true, notebookButton: true, cellHints: true };

export type Choice = keyof typeof DEFAULTS;

export class Choices {
  constructor(registry: ISettingRegistry | null, plugin: string) {
    registry
      ?.load(plugin)
      .then(settings => {
        this.settings = settings;
        settings.changed.connect(() => this._changed.emit());
        this._changed.emit();
      })
      .catch(() => undefined); // then the defaults hold
  }

  /** Something else is chosen now. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  get(name: Choice): boolean {
    return (this.settings?.get(name).composite ?? DEFAULTS[name]) !== false;
  }

  private settings: ISettingRegistry.ISettings | null = null;
  private _changed = new Signal<this, void>(this);
}
