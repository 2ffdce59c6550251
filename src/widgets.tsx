/*
 * The panel and the status-bar item as widgets of JupyterLab.
 */

import { TranslationBundle } from '@jupyterlab/translation';
import { LabIcon, ReactWidget } from '@jupyterlab/ui-components';
import { Message } from '@lumino/messaging';
import * as React from 'react';

import { IActions, NO_ACTIONS, Page } from './actions';
import { useModel } from './components/common';
import { Panel } from './components/panel';
import { PackagesModel } from './model';

const ICON =
  '<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">' +
  '<path class="jp-icon3 jp-icon-selectable" fill="#616161" ' +
  'd="M12 2 3 6.5v11L12 22l9-4.5v-11L12 2zm0 2.2 6.2 3.1L12 10.4 5.8 7.3 12 4.2zM5 9l6 3v7.3l-6-3V9zm8 ' +
  '10.3V12l6-3v7.3l-6 3z"/></svg>';

export const packagesIcon = new LabIcon({ name: 'overlayspawner:packages', svgstr: ICON });

/** The side panel. Asks the server for nothing before it is shown. */
export class PackagesPanel extends ReactWidget {
  constructor(
    readonly model: PackagesModel,
    private readonly trans: TranslationBundle,
    private readonly page: IActions = NO_ACTIONS
  ) {
    super();
    this.id = 'overlayspawner-packages';
    this.addClass('ovl-Panel');
    this.title.icon = packagesIcon;
    this.title.caption = trans.__('Packages');
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', trans.__('Packages'));
  }

  render(): JSX.Element {
    return (
      <Page.Provider value={this.page}>
        <Panel model={this.model} trans={this.trans} />
      </Page.Provider>
    );
  }

  /** Go to where names are typed. */
  focusInput(): void {
    void this.renderPromise?.then(() => this.node.querySelector<HTMLElement>('.ovl-Install textarea')?.focus());
  }

  protected onAfterShow(message: Message): void {
    super.onAfterShow(message);
    void this.model.refresh();
    this.model.watch(true);
  }

  protected onAfterHide(message: Message): void {
    super.onAfterHide(message);
    this.model.watch(false);
  }
}

/** How many packages there are, and whether a change runs. */
export class PackagesStatus extends ReactWidget {
  constructor(
    private readonly model: PackagesModel,
    private readonly trans: TranslationBundle,
    private readonly open: () => void
  ) {
    super();
    this.addClass('ovl-Status');
  }

  render(): JSX.Element {
    return <Status model={this.model} trans={this.trans} open={this.open} />;
  }
}

interface IStatusProps {
  model: PackagesModel;
  trans: TranslationBundle;
  open: () => void;
}

function Status({ model, trans, open }: IStatusProps): JSX.Element {
  useModel(model);
  let text = trans.__('Packages');
  if (model.running) {
    text = trans.__('Packages: %1 %', Math.round(100 * (model.job?.progress ?? 0)));
  } else if (model.count !== null) {
    text = trans.__('Packages: %1', model.count);
  }
  return (
    <button type="button" className="ovl-Status-button" title={trans.__('Open the packages')} onClick={open}>
      {text}
    </button>
  );
}
