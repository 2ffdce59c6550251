/*
 * Kernels that run in the overlay, and those that a change has left with what was before.
 */

import {
  Dialog,
  ISessionContext,
  ISessionContextDialogs,
  SessionContextDialogs,
  showDialog,
  showErrorMessage
} from '@jupyterlab/apputils';
import { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import { Kernel, KernelAPI, ServiceManager } from '@jupyterlab/services';
import { ISignal, Signal } from '@lumino/signaling';

import { IStaleKernel } from '../actions';
import { ITexts } from '../components/common';
import { PackagesModel } from '../model';
import { overlayKernel } from './missing';

/** The kernels of this server, as far as the overlay matters to them. */
export class Kernels {
  constructor(
    private readonly services: ServiceManager.IManager,
    private readonly model: PackagesModel,
    private readonly tracker: INotebookTracker | null,
    private readonly trans: ITexts,
    private readonly dialogs: ISessionContextDialogs = new SessionContextDialogs()
  ) {
    model.changed.connect(this.onModel, this);
    services.sessions.runningChanged.connect(this.onRunning, this);
    tracker?.forEach(panel => this.watch(panel));
    tracker?.widgetAdded.connect((_, panel) => this.watch(panel));
  }

  /** Other kernels are stale now. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  get stale(): readonly IStaleKernel[] {
    return this._stale;
  }

  /** Whether a kernel of this name runs in the overlay. */
  isOurs(name: string): boolean {
    const specs = this.services.kernelspecs.specs?.kernelspecs ?? {};
    return name === overlayKernel(Object.keys(specs));
  }

  /** Restart a kernel, after the user has agreed. */
  async restart(id: string): Promise<void> {
    const context = this.find(id);
    if (context) {
      // it says what is lost, and asks
      if (await this.dialogs.restart(context)) {
        this.fresh(id);
      }
      return;
    }
    const name = this._stale.find(item => item.id === id)?.name ?? '';
    const answer = await showDialog({
      title: this.trans.__('Restart the kernel of %1?', name),
      body: this.trans.__('All its variables will be lost.'),
      buttons: [
        Dialog.cancelButton({ label: this.trans.__('Cancel') }),
        Dialog.warnButton({ label: this.trans.__('Restart') })
      ]
    });
    if (!answer.button.accept) {
      return;
    }
    try {
      await KernelAPI.restartKernel(id, this.services.serverSettings);
    } catch (error) {
      await showErrorMessage(this.trans.__('The kernel of %1 was not restarted', name), String(error));
      return;
    }
    this.fresh(id);
  }

  private find(id: string): ISessionContext | null {
    const panel = this.tracker?.find(item => item.sessionContext.session?.kernel?.id === id);
    return panel?.sessionContext ?? null;
  }

  /** What runs when a change ends that replaced something may have loaded what it replaced. */
  private onModel(): void {
    const job = this.model.job;
    if (job?.state !== 'done' || job.id === this._seen) {
      return;
    }
    this._seen = job.id;
    const running = [...this.services.sessions.running()];
    this._stale = job.plan?.needs_restart
      ? running
          .filter(session => session.kernel && this.isOurs(session.kernel.name))
          .map(session => ({ id: session.kernel!.id, name: session.name || session.path }))
      : this._stale;
    this._changed.emit();
  }

  private onRunning(): void {
    const ids = new Set([...this.services.sessions.running()].map(session => session.kernel?.id));
    this.keep(item => ids.has(item.id));
  }

  /** Notice who restarts a kernel in another way. */
  private watch(panel: NotebookPanel): void {
    panel.sessionContext.statusChanged.connect((context: ISessionContext, status: Kernel.Status) => {
      const id = context.session?.kernel?.id;
      if (id && (status === 'restarting' || status === 'autorestarting')) {
        this.fresh(id);
      }
    });
  }

  private fresh(id: string): void {
    this.keep(item => item.id !== id);
  }

  private keep(wanted: (item: IStaleKernel) => boolean): void {
    const left = this._stale.filter(wanted);
    if (left.length !== this._stale.length) {
      this._stale = left;
      this._changed.emit();
    }
  }

  private _stale: IStaleKernel[] = [];
  private _seen = '';
  private _changed = new Signal<this, void>(this);
}
