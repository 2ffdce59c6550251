/*
 * The place below a cell.
 */

import { ReactWidget } from '@jupyterlab/ui-components';
import * as React from 'react';

import { Hint, IHintProps } from './hint';

/** Below a cell, never in the notebook's file. */
export class HintWidget extends ReactWidget {
  constructor(private readonly props: IHintProps) {
    super();
    this.addClass('ovl-CellHint');
    // keys that are typed on its buttons are not meant for the notebook
    this.node.dataset.lmSuppressShortcuts = 'true';
  }

  render(): JSX.Element {
    return <Hint {...this.props} />;
  }
}
