/*
 * One package that was found: what it is, and which versions there are.
 */

import * as React from 'react';

import { amount, link } from '../text';
import { IFound, IProject, IVersion } from '../types';
import { Button, IPartProps, ITexts, Notice } from './common';

/** Versions that can be chosen from; others can be typed. */
const SHOWN = 60;

export function Detail({ model, trans, item }: IPartProps & { item: IFound }): JSX.Element {
  const [version, setVersion] = React.useState('');
  const found = model.search.project;
  if (item.blocked) {
    return (
      <div className="ovl-Detail">
        <p>{item.blocked}</p>
        <Summary text={item.summary} />
      </div>
    );
  }
  if (found && 'code' in found) {
    return (
      <div className="ovl-Detail">
        <Summary text={item.summary} />
        <Notice notice={found} />
      </div>
    );
  }
  const project = found as IProject | null;
  const home = link(project?.url ?? null);
  return (
    <div className="ovl-Detail">
      <Summary text={project?.summary || item.summary} />
      {home && (
        <p>
          <a href={home} target="_blank" rel="noopener noreferrer">
            {trans.__('Home page')}
          </a>
        </p>
      )}
      {project ? (
        <div className="ovl-Buttons">
          <select
            className="ovl-Input"
            aria-label={trans.__('Version of %1', item.name)}
            value={version}
            onChange={event => setVersion(event.target.value)}
          >
            <option value="">{trans.__('Newest that fits')}</option>
            {project.versions.slice(0, SHOWN).map(entry => (
              <option key={entry.version} value={entry.version} disabled={entry.fits === false}>
                {describe(entry, trans)}
              </option>
            ))}
          </select>
          <Button
            label={trans.__('Install…')}
            title={
              version
                ? trans.__('Install %1 %2', item.name, version)
                : trans.__('Install the newest %1', item.name)
            }
            disabled={model.busy}
            onClick={() => void model.propose({ install: [version ? `${item.name}==${version}` : item.name] })}
          />
        </div>
      ) : (
        <p role="status">{trans.__('Looking which versions there are…')}</p>
      )}
    </div>
  );
}

function Summary({ text }: { text: string }): JSX.Element | null {
  return text ? <p>{text}</p> : null;
}

function describe(entry: IVersion, trans: ITexts): string {
  const parts = [entry.version];
  if (entry.fits === false) {
    parts.push(trans.__('not for this server'));
  } else if (entry.wheel === false) {
    parts.push(trans.__('has to be built'));
  } else if (entry.size) {
    parts.push(amount(entry.size));
  }
  if (entry.prerelease) {
    parts.push(trans.__('pre-release'));
  }
  if (entry.yanked) {
    parts.push(trans.__('withdrawn by its authors'));
  }
  return parts.join(' · ');
}
