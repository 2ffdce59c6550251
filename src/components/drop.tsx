/*
 * Files with requirements: dropped on the panel, or chosen with a button.
 */

import * as React from 'react';

import { MAX_FILE } from '../given';
import { amount } from '../text';
import { Button, IPartProps, ITexts, Notice, useFocusBack, useModel } from './common';

/** What the button offers; a drop takes any file. */
const ACCEPT = '.txt,.in,.toml,.lock,.yml,.yaml';

/** Left-out lines that are shown. */
const SHOWN = 20;

function take({ model, trans }: IPartProps, file: File | undefined): void {
  if (!file) {
    return;
  }
  const texts = {
    large: trans.__('%1 is larger than %2, and was not read.', file.name, amount(MAX_FILE)),
    unread: trans.__('%1 could not be read.', file.name),
    unknown: trans.__('This server can’t read %1. In a terminal: overlay install -r %1', file.name)
  };
  void model.given.take(file, texts).then(lines => {
    if (lines && !model.busy) {
      void model.propose({ install: lines });
    }
  });
}

/** The panel's content, on which files can be dropped. */
export function DropZone(props: IPartProps & { children: React.ReactNode }): JSX.Element {
  const { model, trans, children } = props;
  const [over, setOver] = React.useState(false);
  const isFile = (event: React.DragEvent): boolean => [...event.dataTransfer.types].includes('Files');
  return (
    <div
      className="ovl-Panel-content"
      onDragOver={event => {
        if (isFile(event)) {
          event.preventDefault();
          event.stopPropagation();
          event.dataTransfer.dropEffect = model.busy ? 'none' : 'copy';
          setOver(!model.busy);
        }
      }}
      onDragLeave={event => {
        if (!event.currentTarget.contains(event.relatedTarget as Node | null)) {
          setOver(false);
        }
      }}
      onDrop={event => {
        setOver(false);
        if (isFile(event)) {
          event.preventDefault();
          event.stopPropagation();
          take({ model, trans }, event.dataTransfer.files[0]);
        }
      }}
    >
      {children}
      {over && <div className="ovl-Drop">{trans.__('Drop it to see what it would install')}</div>}
    </div>
  );
}

/** For those who drop nothing. */
export function FileButton({ model, trans }: IPartProps): JSX.Element {
  const input = React.useRef<HTMLInputElement>(null);
  return (
    <>
      <input
        ref={input}
        className="ovl-File"
        type="file"
        accept={ACCEPT}
        aria-label={trans.__('Requirements file')}
        tabIndex={-1}
        hidden
        onChange={event => {
          take({ model, trans }, event.target.files?.[0]);
          event.target.value = ''; // so that the same file can be chosen again
        }}
      />
      <Button
        label={trans.__('File…')}
        title={trans.__('Install from a file: requirements.txt, pyproject.toml, a lock')}
        disabled={model.busy || model.proposal !== null}
        onClick={() => input.current?.click()}
      />
    </>
  );
}

/** A file of which something has to be decided, or said. */
export function FromFile({ model, trans }: IPartProps): JSX.Element | null {
  useModel(model);
  const shown = model.given.found !== null || model.given.error !== null;
  return shown && !model.proposal ? <Card {...{ model, trans }} /> : null;
}

function Card({ model, trans }: IPartProps): JSX.Element {
  const given = model.given;
  const box = React.useRef<HTMLDivElement>(null);
  useFocusBack(box);
  React.useEffect(() => box.current?.focus(), []);
  const { found, name } = given;
  const count = found?.requirements.length ?? 0;
  return (
    <div
      className="ovl-Proposal"
      role="group"
      aria-label={trans.__('Packages of the file %1', name)}
      tabIndex={-1}
      ref={box}
      onKeyDown={event => {
        if (event.key === 'Escape') {
          given.close();
        }
      }}
    >
      <h3>{name}</h3>
      {given.error && <Notice notice={given.error} role="alert" />}
      {found && (
        <>
          <p role="status">{trans._n('It asks for %1 package.', 'It asks for %1 packages.', count, count)}</p>
          <Groups {...{ model, trans }} names={found.groups} />
          <LeftOut {...{ model, trans }} />
        </>
      )}
      <div className="ovl-Buttons">
        {count > 0 && (
          <Button
            label={trans.__('Install…')}
            kind="accept"
            disabled={model.busy || given.busy}
            onClick={() => void model.propose({ install: found!.requirements })}
          />
        )}
        <Button label={trans.__('Close')} onClick={() => given.close()} />
      </div>
    </div>
  );
}

function Groups({ model, trans, names }: IPartProps & { names: string[] }): JSX.Element | null {
  if (!names.length) {
    return null;
  }
  return (
    <fieldset className="ovl-Groups">
      <legend>{trans.__('Also these groups')}</legend>
      {names.map(name => (
        <label key={name}>
          <input
            type="checkbox"
            checked={model.given.groups.includes(name)}
            onChange={event => void model.given.choose(name, event.target.checked)}
          />{' '}
          {name}
        </label>
      ))}
    </fieldset>
  );
}

function LeftOut({ model, trans }: IPartProps): JSX.Element | null {
  const items = model.given.found?.left_out ?? [];
  if (!items.length) {
    return null;
  }
  return (
    <>
      <p>{trans._n('%1 thing is left out:', '%1 things are left out:', items.length, items.length)}</p>
      <ul>
        {items.slice(0, SHOWN).map((item, index) => (
          <li key={index}>
            <code>{item.requirement}</code> {item.reason || noPath(trans)} {item.hint}
          </li>
        ))}
      </ul>
    </>
  );
}

function noPath(trans: ITexts): string {
  return trans.__('Options and paths mean nothing here: the page sees this one file only.');
}
