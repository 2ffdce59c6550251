/*
 * A question in place: what would be, and whether it shall.
 */

import * as React from 'react';

import { Button, ITexts, useFocusBack } from './common';

interface IConfirmProps {
  trans: ITexts;
  text: string;
  label: string;
  disabled?: boolean;
  onAccept: () => void;
  onCancel: () => void;
}

export function Confirm(props: IConfirmProps): JSX.Element {
  const { trans, text, label, disabled, onAccept, onCancel } = props;
  const box = React.useRef<HTMLDivElement>(null);
  useFocusBack(box);
  React.useEffect(() => box.current?.focus(), []);
  return (
    <div
      className="ovl-Confirm"
      role="group"
      aria-label={label}
      tabIndex={-1}
      ref={box}
      onKeyDown={event => {
        if (event.key === 'Escape') {
          event.stopPropagation();
          onCancel();
        }
      }}
    >
      <p>{text}</p>
      <div className="ovl-Buttons">
        <Button label={label} kind="warn" disabled={disabled} onClick={onAccept} />
        <Button label={trans.__('Cancel')} onClick={onCancel} />
      </div>
    </div>
  );
}
